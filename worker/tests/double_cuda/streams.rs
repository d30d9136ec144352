//! Streams do their work later, in order, and beside one another: whoever forgets to wait reads what was there before.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::double::{self, Driver};
use crate::raw::{Cuda, Gate, Memcpy2D, Side, address, address_mut, made, peek, poke};

#[test]
fn work_is_done_in_stream_order_and_not_at_the_call() {
    let driver = Driver::new();
    for part in ["later", "event_order", "default_stream", "freeing_waits", "full_queue"] {
        driver.pass(&format!("streams::{part}"));
    }
    driver.assert_clean();
}

/// Every copy takes its time, so that whoever does not wait for it is too early.
#[test]
fn a_copy_waits_where_the_driver_waits_and_nowhere_else() {
    let driver = Driver::new().fault("cuda.copy sleep=60");
    driver.pass("streams::pinned_and_pageable");
    driver.assert_clean();
}

/// The end of a test that leaves nothing.
fn end(cuda: &Cuda, streams: &[u64], memory: &[u64]) {
    for stream in streams {
        assert_eq!(cuda.cuStreamDestroy_v2(*stream), 0);
    }
    for at in memory {
        assert_eq!(cuda.cuMemFree_v2(*at), 0);
    }
    assert_eq!(cuda.cuDevicePrimaryCtxRelease_v2(0), 0);
}

#[test]
#[ignore = "run in a process of its own by work_is_done_in_stream_order_and_not_at_the_call"]
fn later() {
    let cuda = Cuda::start(&double::folder());
    let (stream, event, at) = (cuda.stream(), cuda.event(), cuda.memory(64));
    let second = cuda.event();
    assert_eq!((cuda.cuEventQuery(event), cuda.cuEventSynchronize(event)), (0, 0), "never recorded is happened");
    assert_eq!(cuda.cuEventRecord(event, stream), 0);
    let gate = Gate::close(&cuda, stream);
    assert_eq!(cuda.cuMemsetD8Async(at, 1, 64, stream), 0);
    assert_eq!(cuda.cuMemsetD8Async(at, 2, 32, stream), 0);
    assert_eq!(cuda.cuEventRecord(second, stream), 0);
    assert_eq!((cuda.cuEventSynchronize(event), cuda.cuEventQuery(event)), (0, 0), "recorded before the gate");
    assert_eq!((cuda.cuStreamQuery(stream), cuda.cuEventQuery(second)), (600, 600));
    let mut ms = 0.0;
    assert_eq!(cuda.cuEventElapsedTime(&raw mut ms, event, second), 600);
    assert_eq!((peek(at), peek(at + 63)), (0xa7, 0xa7), "nothing was filled at the call");
    gate.open();
    assert_eq!((cuda.cuEventSynchronize(second), gate.passed()), (0, true));
    assert_eq!((peek(at), peek(at + 63)), (2, 1), "filled in order");
    assert_eq!((cuda.cuStreamSynchronize(stream), cuda.cuStreamQuery(stream)), (0, 0));
    assert_eq!(cuda.cuEventElapsedTime(&raw mut ms, event, second), 0);
    assert!(ms > 0.0 && ms < 60_000.0, "{ms}");
    let mut back = 0.0;
    assert_eq!((cuda.cuEventElapsedTime(&raw mut back, second, event), back), (0, -ms));
    assert_eq!((cuda.cuEventDestroy_v2(event), cuda.cuEventDestroy_v2(second)), (0, 0));
    end(&cuda, &[stream], &[at]);
}

#[test]
#[ignore = "run in a process of its own by work_is_done_in_stream_order_and_not_at_the_call"]
fn event_order() {
    let cuda = Cuda::start(&double::folder());
    let (writer, reader, event) = (cuda.stream(), cuda.stream(), cuda.event());
    let (at, seen) = (cuda.memory(64), cuda.pinned(64));
    let copy = |gate: Option<&Gate>| {
        assert_eq!(cuda.cuMemcpyDtoHAsync_v2(seen, at, 64, reader), 0);
        if let Some(gate) = gate {
            gate.open();
        }
        assert_eq!(cuda.cuStreamSynchronize(reader), 0);
        peek(seen)
    };
    // The picture that is being written, without a wait: the old one is read.
    let gate = Gate::close(&cuda, writer);
    assert_eq!(cuda.cuMemsetD8Async(at, 5, 64, writer), 0);
    assert_eq!(cuda.cuEventRecord(event, writer), 0);
    assert_eq!(copy(None), 0xa7, "nobody waited");
    // With it, the new one.
    assert_eq!(cuda.cuStreamWaitEvent(reader, event, 0), 0);
    assert_eq!(copy(Some(gate)), 5, "the event was waited for");
    // A wait is for the record that was the latest when it was asked for, and outlives the event.
    let gate = Gate::close(&cuda, writer);
    assert_eq!(cuda.cuMemsetD8Async(at, 6, 64, writer), 0);
    assert_eq!(cuda.cuEventRecord(event, writer), 0);
    assert_eq!(cuda.cuStreamWaitEvent(reader, event, 0), 0);
    assert_eq!(cuda.cuEventRecord(event, 0), 0, "in a stream that has nothing to do");
    assert_eq!(cuda.cuEventDestroy_v2(event), 0);
    assert_eq!(copy(Some(gate)), 6);
    assert_eq!(cuda.cuMemFreeHost(seen), 0);
    end(&cuda, &[writer, reader], &[at]);
}

#[test]
#[ignore = "run in a process of its own by work_is_done_in_stream_order_and_not_at_the_call"]
fn default_stream() {
    let cuda = Cuda::start(&double::folder());
    let (blocking, beside) = (made(|stream| cuda.cuStreamCreate(stream, 0)), cuda.stream());
    let (at, other) = (cuda.memory(64), cuda.memory(64));
    let gate = Gate::close(&cuda, blocking);
    assert_eq!(cuda.cuMemsetD8Async(at, 1, 64, blocking), 0);
    // A fill without a stream does not wait at the call, but in its stream.
    assert_eq!(cuda.cuMemsetD8_v2(at, 2, 64), 0);
    assert_eq!(cuda.cuMemcpyDtoD_v2(other, at, 64), 0);
    assert_eq!((cuda.cuStreamQuery(0), peek(at)), (600, 0xa7));
    // And a blocking stream waits for it; one made otherwise does not.
    assert_eq!(cuda.cuMemsetD8Async(at, 3, 64, blocking), 0);
    assert_eq!((cuda.cuMemsetD8Async(other, 9, 64, beside), cuda.cuStreamSynchronize(beside)), (0, 0));
    assert_eq!((peek(other), peek(at)), (9, 0xa7));
    gate.open();
    assert_eq!((cuda.cuStreamSynchronize(0), peek(other)), (0, 2), "copied between the second fill and the third");
    assert_eq!((cuda.cuStreamSynchronize(blocking), peek(at)), (0, 3));
    end(&cuda, &[blocking, beside], &[at, other]);
}

#[test]
#[ignore = "run in a process of its own by work_is_done_in_stream_order_and_not_at_the_call"]
fn freeing_waits() {
    let cuda = Cuda::start(&double::folder());
    let (stream, at) = (cuda.stream(), cuda.memory(64));
    let context = made(|context| cuda.cuCtxGetCurrent(context));
    let gate = Gate::close(&cuda, stream);
    assert_eq!(cuda.cuMemsetD8Async(at, 1, 64, stream), 0);
    // What a destroyed stream was given is still done, and still waited for.
    assert_eq!(cuda.cuStreamDestroy_v2(stream), 0);
    let (freed, done) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(cuda.cuCtxSetCurrent(context), 0);
            assert_eq!(cuda.cuMemFree_v2(at), 0);
            freed.send(gate.passed()).unwrap();
        });
        let early = done.recv_timeout(Duration::from_millis(50));
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "the stream had not come to the fill");
        gate.open();
        assert!(done.recv().unwrap(), "freed after the stream was done");
    });
    end(&cuda, &[], &[]);
}

#[test]
#[ignore = "run in a process of its own by a_copy_waits_where_the_driver_waits_and_nowhere_else"]
fn pinned_and_pageable() {
    let cuda = Cuda::start(&double::folder());
    let (stream, at, pinned) = (cuda.stream(), cuda.memory(8), cuda.pinned(8));
    // Pageable bytes are taken at the call, pinned ones when the stream comes to them.
    let mut pageable = [1_u8; 4];
    poke(pinned, 1);
    let gate = Gate::close(&cuda, stream);
    assert_eq!(cuda.cuMemcpyHtoDAsync_v2(at, address(&pageable), 4, stream), 0);
    assert_eq!(cuda.cuMemcpyHtoDAsync_v2(at + 4, pinned, 4, stream), 0);
    pageable.fill(2);
    poke(pinned, 2);
    gate.open();
    // To pageable memory a copy has arrived when the call returns.
    let mut back = [0_u8; 8];
    assert_eq!(cuda.cuMemcpyDtoHAsync_v2(address_mut(&mut back), at, 8, stream), 0);
    assert_eq!((&back[..4], back[4]), (&[1_u8; 4][..], 2));
    let what = Memcpy2D { from: Side::host(address(&pageable), 2), to: Side::device(at, 4), width: 2, height: 2 };
    let gate = Gate::close(&cuda, stream);
    assert_eq!(cuda.cuMemcpy2DAsync_v2(&raw const what, stream), 0);
    pageable.fill(3);
    gate.open();
    assert_eq!(cuda.cuStreamSynchronize(stream), 0);
    assert_eq!(cuda.read(at, 6), [2, 2, 1, 1, 2, 2]);
    // To pinned memory it has not.
    assert_eq!(cuda.cuMemcpyDtoHAsync_v2(pinned, at, 8, stream), 0);
    assert_eq!((cuda.cuStreamQuery(stream), cuda.cuStreamSynchronize(stream), peek(pinned + 2)), (600, 0, 1));
    assert_eq!(cuda.cuMemFreeHost(pinned), 0);
    end(&cuda, &[stream], &[at]);
}

#[test]
#[ignore = "run in a process of its own by work_is_done_in_stream_order_and_not_at_the_call"]
fn full_queue() {
    let cuda = Cuda::start(&double::folder());
    let (stream, at) = (cuda.stream(), cuda.memory(8));
    let context = made(|context| cuda.cuCtxGetCurrent(context));
    let gate = Gate::close(&cuda, stream);
    let (submitted, done) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(cuda.cuCtxSetCurrent(context), 0);
            for n in 0..3000 {
                assert_eq!(cuda.cuMemsetD8Async(at, (n % 251) as u8, 8, stream), 0);
            }
            submitted.send(gate.passed()).unwrap();
        });
        // Whoever waits for room in one stream does not hold up others.
        assert_eq!((cuda.cuMemsetD8_v2(at, 0, 8), cuda.cuStreamSynchronize(0)), (0, 0));
        gate.open();
        assert!(done.recv().unwrap(), "a full stream holds up who submits");
    });
    assert_eq!((cuda.cuStreamSynchronize(stream), peek(at)), (0, (2999 % 251) as u8));
    end(&cuda, &[stream], &[at]);
}

#[test]
fn a_codec_that_copies_for_itself_is_not_the_caller() {
    let driver = Driver::new().fault("cuda.copy code=1 after=1");
    driver.pass("streams::aside");
    let counts = driver.counts();
    assert_eq!((counts["codec copies"], counts["codec bytes"], counts["copies htod"]), (2, 16, 1), "{counts:?}");
    assert_eq!(driver.broken(), Vec::<String>::new());
}

#[test]
#[ignore = "run in a process of its own by a_codec_that_copies_for_itself_is_not_the_caller"]
fn aside() {
    let cuda = Cuda::start(&double::folder());
    let (at, bytes) = (cuda.memory(8), [1_u8; 8]);
    assert_eq!(cuda.cuMemcpyHtoD_v2(at, address(&bytes), 8), 0);
    cuda.rung_double_aside(1);
    assert_eq!(cuda.cuMemcpyHtoD_v2(at, address(&bytes), 8), 0, "no fault is for a codec");
    assert_eq!(cuda.read(at, 8), bytes);
    cuda.rung_double_aside(-1);
    assert_eq!(cuda.cuMemcpyHtoD_v2(at, address(&bytes), 8), 1);
}
