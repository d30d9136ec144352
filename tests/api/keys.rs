//! Keys that sign viewers in: what is checked by is what the store holds, whether or not anybody waited for the change.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use rung::control::state::{Error, Need};
use rung::media::playback::{Claims, Denied, Material, pass};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::support::{Rig, wait};

/// Lets nothing be written while `meanwhile` runs; then waits until everything is that was queued in front of its end.
fn with_a_busy_disk(rig: &Rig, meanwhile: impl FnOnce()) {
    let store = &rig.ledger().state().control;
    let ((entered, is_busy), (release, gate)) = (mpsc::channel(), mpsc::channel::<()>());
    let gate = Mutex::new(gate);
    let busy = store.write(Need::Ordinary, move |_| {
        entered.send(()).unwrap();
        assert!(gate.lock().unwrap().recv().is_err(), "released by whoever drops the other end");
        Ok::<_, Error>(())
    });
    is_busy.recv().unwrap();
    meanwhile();
    drop(release);
    busy.wait().unwrap();
    store.write(Need::Ordinary, |_| Ok::<_, Error>(())).wait().unwrap();
}

fn names(rig: &Rig) -> Vec<Value> {
    let list = rig.get("/v1/playback-keys").json();
    list["items"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect()
}

#[test]
fn a_key_is_void_once_it_is_deleted_though_nobody_waits_for_the_answer() {
    let rig = Rig::new();
    assert_eq!(rig.post("/v1/playback-keys", json!({ "name": "website" })).status, 201);
    let keyring = rig.api.as_ref().unwrap().keyring();
    let is_new = |material: &Material| matches!(material, Material::Hs256(_));
    let key = keyring.get().keys.iter().find(|key| is_new(&key.material)).unwrap().id;
    let playback = Ulid::from_parts(1, 2);
    let claims = Claims { playback, expires: u32::MAX, viewer: None, height_max: None, address: None };
    let pass = pass::seal(&keyring.get(), key, &claims);
    let open = || pass::open(&keyring.get(), &pass, playback, [127, 0, 0, 1].into(), 1_000);
    assert_eq!(open(), Ok(claims));

    // Whether the request was in the queue when its sender went away shows afterwards; if not, it is given more time.
    let deleted = (0..6).any(|trial| {
        with_a_busy_disk(&rig, || {
            let mut stream = TcpStream::connect(rig.address).unwrap();
            let request = format!(
                "DELETE /v1/playback-keys/website HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n\r\n",
                rig.token
            );
            stream.write_all(request.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(50 << trial));
            drop(stream);
            wait("nobody is connected", || (rig.server().connections() == 0).then_some(()));
        });
        !names(&rig).contains(&json!("website"))
    });
    assert!(deleted, "the request never came to the store");
    assert_eq!(open(), Err(Denied::Invalid("the key that it was made with is gone")));
}

#[test]
fn keys_that_come_and_go_at_the_same_time_leave_what_the_store_holds() {
    let rig = Rig::new();
    let keyring = rig.api.as_ref().unwrap().keyring();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let rig = &rig;
            scope.spawn(move || {
                for n in 0..15 {
                    let name = format!("k-{writer}-{n}");
                    assert_eq!(rig.post("/v1/playback-keys", json!({ "name": name })).status, 201);
                    let gone = rig.ask("DELETE", &format!("/v1/playback-keys/{name}"), Value::Null);
                    assert_eq!(gone.status, 204, "{}", gone.text());
                }
            });
        }
    });
    assert_eq!((names(&rig), keyring.get().keys.len()), (vec![json!("rung")], 1));
}
