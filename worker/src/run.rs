//! The two ways in which a worker is started: for one channel, and as a shared process on a GPU.

use rung::media::limits::CONTROL_BYTES_MAX;
use rung::pixels::protocol::{self, FromShared, Join, VERSION};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send, sockopt,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use crate::probe::{self, Described};
use crate::process::{Device, Process, watch_over};
use crate::sandbox;
use crate::seat;

/// Serves one channel until the daemon's end closes.
///
/// # Errors
/// A sentence for the daemon's log: the socket broke, or the other end speaks another protocol.
pub fn serve(socket: OwnedFd) -> Result<(), String> {
    // What reads the machine's files does it now; from the sandbox on there is the socket and memory.
    let process = Process::own();
    let sandbox = sandbox::enter()?;
    let shared = process.seat(0)?;
    let about = Arc::new(Described { sandbox, gpus: None });
    // The daemon is gone, or this process must go: what is still inside goes with it.
    seat::serve(UnixStream::from(socket), &shared, &about)?.read
}

/// Says what this machine can do, GPUs included, until the daemon's end closes. Reads nothing of a stranger, so there is
/// no sandbox.
///
/// # Errors
/// As `serve`.
pub fn serve_probe(socket: OwnedFd, driver_folder: Option<&Path>) -> Result<(), String> {
    let shared = Process::own().seat(0)?;
    let sandbox = "a probe has no sandbox".to_owned();
    let about = Arc::new(Described { sandbox, gpus: Some(probe::gpus(driver_folder)) });
    seat::serve(UnixStream::from(socket), &shared, &about)?.read
}

/// Serves the channels that the daemon hands over on `control`, each on a socket and on threads of its own, until
/// `control` closes. A call into the driver that takes longer than the device's patience has hung.
///
/// # Errors
/// A sentence for the daemon's log: the control socket broke, or the other end speaks another protocol.
pub fn serve_shared(control: OwnedFd, device: Device) -> Result<(), String> {
    // What reads the machine's files and starts the driver's own threads does it now, before the sandbox.
    let (folder, patience) = (device.driver_folder.clone(), device.patience);
    let process = Process::of(device);
    process.take_gpu();
    let sandbox = sandbox::enter_gpu(folder.as_deref())?;
    let watched = Arc::downgrade(&process);
    let watch = std::thread::Builder::new().name("watchdog".to_owned());
    watch.spawn(move || watch_over(&watched, patience)).map_err(|e| format!("thread watchdog: {e}"))?;
    let hello = FromShared::Hello { version: VERSION, pid: std::process::id(), sandbox: sandbox.clone() };
    tell(&control, &hello).map_err(|e| format!("control socket: {e}"))?;
    let room = Arc::new(Room { process, about: Arc::new(Described { sandbox, gpus: None }), control });
    while let Some((join, socket)) = receive(&room.control)? {
        admit(&room, join.seat, socket)?;
    }
    room.process.give_up_gpu();
    Ok(())
}

/// What the threads that serve a shared process's channels have in common.
struct Room {
    process: Arc<Process>,
    about: Arc<Described>,
    control: OwnedFd,
}

fn admit(room: &Arc<Room>, number: u32, socket: UnixStream) -> Result<(), String> {
    let shared = match room.process.seat(number) {
        Ok(shared) => shared,
        Err(what) => {
            seat::refuse(socket, what);
            return tell(&room.control, &FromShared::Left { seat: number }).map_err(|e| format!("control socket: {e}"));
        }
    };
    let (room, seated) = (Arc::clone(room), Arc::clone(&shared));
    let serve = move || {
        match seat::serve(socket, &seated, &room.about) {
            Ok(ended) => ended.clear(),
            Err(what) => seated.fail(0, what),
        }
        room.process.leave(number);
        // A daemon that is gone knows.
        let _gone = tell(&room.control, &FromShared::Left { seat: number });
    };
    shared.spawn(format!("seat-{number}"), 0, serve).map(drop).map_err(|e| format!("thread seat-{number}: {e}"))
}

fn tell(control: &OwnedFd, message: &FromShared) -> Result<(), Errno> {
    send(control, &protocol::packet(message), SendFlags::NOSIGNAL).map(drop)
}

/// The next channel and its socket; `None`: the daemon closed the control socket.
fn receive(control: &OwnedFd) -> Result<Option<(Join, UnixStream)>, String> {
    let mut bytes = [0; CONTROL_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(control, &mut [IoSliceMut::new(&mut bytes)], &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other.map_err(|e| format!("control socket: {e}"))?,
        }
    };
    let socket = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if received.bytes == 0 && socket.is_none() {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err("a control message is too long, or brings more than one descriptor".to_owned());
    }
    let join: Join = protocol::from_packet(&bytes[..received.bytes])?;
    let socket = socket.ok_or_else(|| format!("the daemon seats channel {} without a socket", join.seat))?;
    sockopt::socket_type(&socket).map_err(|e| format!("the daemon seats channel {} on no socket: {e}", join.seat))?;
    Ok(Some((join, UnixStream::from(socket))))
}
