//! Clients that cost: bodies that come a byte at a time, answers that nobody reads. Method: many of them beside one that asks
//! as it should.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rung::control::api::Options as ApiOptions;
use rung::serve::Options;
use rung::serve::connection::Patience;
use serde_json::{Value, json};

use crate::support::{Rig, at_once, open_doors, wait};

/// The head of a POST whose body has `length` bytes.
fn post(rig: &Rig, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(rig.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /v1/channels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n",
        rig.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// What a server says before it closes, or for as long as it says something.
fn said(mut stream: TcpStream) -> String {
    let (mut text, mut piece) = (Vec::new(), [0; 4_096]);
    loop {
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => text.extend_from_slice(&piece[..n]),
            // Closed while bytes of ours were on their way.
            _ => return String::from_utf8(text).unwrap(),
        }
        if text.ends_with(b"}") {
            return String::from_utf8(text).unwrap();
        }
    }
}

#[test]
fn bodies_that_come_slowly_are_given_up_and_cost_nobody() {
    const SLOW: usize = 200;
    let options = ApiOptions { body_patience: Duration::from_secs(2), ..open_doors() };
    let rig = Rig::with(options, Options::default(), at_once());
    let body = json!({ "name": "never" }).to_string();
    let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| post(&rig, body.len())).collect();
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    for (n, byte) in body.bytes().take(10).enumerate() {
        for stream in &mut slow {
            stream.write_all(&[byte]).unwrap();
        }
        let asked = Instant::now();
        rig.make_channel(&format!("c{n}"));
        worst = worst.max(asked.elapsed());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2) || worst < Duration::from_secs(1),
        "{worst:?} for a channel beside them"
    );
    for stream in slow {
        let said = said(stream);
        assert!(said.starts_with("HTTP/1.1 408") && said.contains("\"code\":\"body_slow\""), "{said}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "all of them at the same time");
    assert_eq!(rig.get("/v1/channels/never").status, 404);
    wait("closed connections", || (rig.server().connections() == 0).then_some(()));
}

#[test]
fn large_bodies_share_their_room_and_ordinary_ones_need_none() {
    const LARGE: usize = 900 << 10;
    let options = ApiOptions { bodies_bytes_max: 2 << 20, ..open_doors() };
    let rig = Rig::with(options, Options::default(), at_once());
    let padded = |name: &str, length: usize| {
        let body = json!({ "name": name }).to_string();
        format!("{body}{}", " ".repeat(length - body.len())).into_bytes()
    };
    let large = |name: &str, rest: usize| {
        let mut stream = post(&rig, LARGE);
        drop(stream.write_all(&padded(name, LARGE)[..LARGE - rest]));
        stream
    };
    // The third finds no room once the server has both; where it was faster than one of them, it took that one's.
    let mut tries = 0;
    let (mut held, refused) = wait("no room", || {
        tries += 1;
        let held = ["a", "b"].map(|one| large(&format!("{one}{tries}"), 1));
        rig.get("/v1/channels");
        let third = said(large(&format!("c{tries}"), 0));
        let waits = held.iter().all(|stream| {
            stream.set_nonblocking(true).unwrap();
            let unanswered = stream.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
            stream.set_nonblocking(false).unwrap();
            unanswered
        });
        (waits && third.starts_with("HTTP/1.1 503")).then_some((Vec::from(held), third))
    });
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("\"code\":\"overloaded\""), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    rig.make_channel("ordinary");
    // One of them gets its last byte, the other goes away: their room is free again.
    let mut whole = held.pop().unwrap();
    whole.write_all(b" ").unwrap();
    assert!(said(whole).starts_with("HTTP/1.1 201"));
    drop(held);
    wait("room", || said(large("after", 0)).starts_with("HTTP/1.1 201").then_some(()));
}

#[test]
fn answers_that_nobody_reads_are_held_within_bounds_and_cost_nobody() {
    let patience = Patience { write_stall: Duration::from_secs(3), ..Patience::default() };
    let rig = Rig::with(open_doors(), Options { patience, ..Options::default() }, at_once());
    for n in 0..100 {
        rig.make_channel(&format!("c{n}"));
    }
    let page = rig.get("/v1/channels?limit=100").body.len();
    let mut deaf: Vec<TcpStream> = (0..2)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            socket.connect(&rig.address.into()).unwrap();
            socket.into()
        })
        .collect();
    let request =
        format!("GET /v1/channels?limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", rig.token);
    // More than the sockets of a connection hold.
    let requests = request.repeat((8 << 20) / page);
    for stream in &mut deaf {
        stream.set_nonblocking(true).unwrap();
        drop(stream.write(requests.as_bytes()));
    }
    // All of them have stalled: nothing moves any more.
    let (mut last, mut same) = (0, 0);
    wait("stalled answers", || {
        let now = rig.server().held_bytes();
        same = if now == last && now >= deaf.len() * page / 2 { same + 1 } else { 0 };
        last = now;
        (same >= 20).then_some(())
    });
    let begun = Instant::now();
    let (mut most, mut worst) = (0, Duration::ZERO);
    while rig.server().connections() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "they are closed: {}", rig.server().connections());
        let asked = Instant::now();
        assert_eq!(rig.ask("PATCH", "/v1/channels/c0", json!({ "max_duration_s": null })).status, 200);
        worst = worst.max(asked.elapsed());
        most = most.max(rig.server().held_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(most <= deaf.len() * 2 * page, "{most} bytes are held for {} answers of {page}", deaf.len());
    assert!(worst < Duration::from_secs(1), "{worst:?} for a change beside them");
    assert_eq!(rig.get("/v1/channels/c0").json()["max_duration_s"], Value::from(43_200));
}
