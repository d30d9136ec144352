//! `rung push` over QUIC: a file, a pipe or UDP published by one or many publishers from one thread, in real time.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{ClientConfig, Endpoint, TransportConfig, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::controller::{LiveWindows, Rate};
use super::port::idle;
use super::session::{News, Session};
use super::source::{Intake, Source};
use super::tls::{self, Trust};
use super::url::QuicUrl;
use crate::ingest::Knobs;
use crate::ingest::publish::{
    Progress, PublishEnd, PublishEvent, PushError, RETRY, STAGGER, SourceNews, StreamProgress, TICK,
};
use crate::time::SystemClock;

/// So often something is said when nothing else is: well within the peer's idle time.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Until the source's rate is known, bits per second.
const RATE_ASSUMED: u64 = 8_000_000;
/// The last words may take so long.
const FAREWELL: Duration = Duration::from_secs(1);
/// News that wait for whoever runs this; a lane has a few a second.
const NEWS: usize = 256;

#[derive(Clone, Debug)]
pub struct PushOptions {
    pub source: Source,
    pub url: QuicUrl,
    pub trust: Trust,
    /// Publishers, of a file; `{n}` in channel and key becomes 1, 2, …
    pub streams: u32,
    /// A file again from the start, as one continuous stream.
    pub looping: bool,
    /// Come back when the connection ends or cannot be made; media of the meantime is lost, as an encoder's.
    pub reconnect: bool,
    /// Faults made on purpose, of a file.
    pub knobs: Knobs,
    pub seed: u64,
}

enum Said {
    Event(PublishEvent),
    Source(SourceNews),
    Shorter(Duration),
}

/// Publishes until the source ends or `progress` breaks.
///
/// # Errors
/// The source, the address, or the first publisher that ended early (the others went on to their end).
pub fn push(
    options: &PushOptions,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<StreamProgress>, PushError> {
    if options.streams > 1 && !matches!(options.source, Source::File(_)) {
        return Err(PushError::Address("only a file can be published as several streams".into()));
    }
    let peer = options.url.resolve().map_err(PushError::Address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PushError::Socket)?;
    runtime.block_on(run(options, peer, progress))
}

async fn run(
    options: &PushOptions,
    peer: SocketAddr,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<StreamProgress>, PushError> {
    let any: SocketAddr =
        if peer.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let endpoint = Endpoint::client(any).map_err(PushError::Socket)?;
    let count = options.streams.max(1);
    let board = Rc::new(RefCell::new(vec![StreamProgress::default(); count as usize]));
    let (say, mut said) = mpsc::channel(NEWS);
    let (stop, _) = watch::channel(false);
    let mut lanes = FuturesUnordered::new();
    for stream in 1..=count {
        let lane = Lane::open(options, stream, peer, &endpoint, say.clone(), Rc::clone(&board), stop.subscribe())?;
        lanes.push(lane.run());
    }
    let (begin, mut tick, mut failed) = (SystemClock::mono(), interval(TICK), None);
    while !lanes.is_empty() {
        let flow = tokio::select! {
            Some(done) = lanes.next() => {
                if let Err(error) = done {
                    failed.get_or_insert(error);
                }
                ControlFlow::Continue(())
            }
            Some((stream, said)) = said.recv() => tell(stream, &said, progress),
            _ = tick.tick() => {
                let streams = board.borrow().clone();
                progress(Progress::Tick { elapsed: SystemClock::mono() - begin, streams: &streams })
            }
        };
        if flow.is_break() {
            stop.send_replace(true);
        }
    }
    while let Ok((stream, last)) = said.try_recv() {
        // Nothing is left to be stopped.
        let _over = tell(stream, &last, progress);
    }
    endpoint.close(VarInt::from_u32(0), b"");
    // Whoever is gone is not waited for.
    drop(timeout(FAREWELL, endpoint.wait_idle()).await);
    let streams = board.borrow().clone();
    failed.map_or(Ok(streams), Err)
}

fn tell(stream: u32, said: &Said, progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    match said {
        Said::Event(event) => progress(Progress::Event { stream, event }),
        Said::Source(news) => progress(Progress::Source { stream, news }),
        Said::Shorter(segment) => progress(Progress::Late { stream, segment: *segment }),
    }
}

fn client_config(trust: &Trust, rate: &Rate) -> Result<ClientConfig, String> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(LiveWindows(rate.clone())));
    let mut config = ClientConfig::new(Arc::new(tls::publisher(trust)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// One publisher and its reader of the source.
struct Lane {
    stream: u32,
    url: QuicUrl,
    peer: SocketAddr,
    endpoint: Endpoint,
    config: ClientConfig,
    rate: Rate,
    reconnect: bool,
    name: std::path::PathBuf,
    intake: Intake,
    say: mpsc::Sender<(u32, Said)>,
    board: Rc<RefCell<Vec<StreamProgress>>>,
    stop: watch::Receiver<bool>,
}

/// How a connection went.
enum Went {
    /// The source is at its end, or it was stopped.
    Over,
    Ended(PublishEnd),
}

impl Lane {
    fn open(
        options: &PushOptions,
        stream: u32,
        peer: SocketAddr,
        endpoint: &Endpoint,
        say: mpsc::Sender<(u32, Said)>,
        board: Rc<RefCell<Vec<StreamProgress>>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Lane, PushError> {
        let rate = Rate::new(options.url.max_bitrate.unwrap_or(RATE_ASSUMED));
        let seed = options.seed.wrapping_add(stream.into());
        let told = say.clone();
        // News that nobody takes now are old when somebody does.
        let tell = move |news| drop(told.try_send((stream, Said::Source(news))));
        let intake = Intake::open(&options.source, options.looping, options.knobs, seed, tell)
            .map_err(|source| PushError::File { path: options.source.name(), source })?;
        Ok(Lane {
            stream,
            url: options.url.numbered(stream),
            peer,
            endpoint: endpoint.clone(),
            config: client_config(&options.trust, &rate).map_err(PushError::Address)?,
            rate,
            reconnect: options.reconnect,
            name: options.source.name(),
            intake,
            say,
            board,
            stop,
        })
    }

    /// Until the source ends, it is stopped, or a connection ends for good.
    async fn run(mut self) -> Result<(), PushError> {
        let mut retry = RETRY.0;
        self.pass(STAGGER * (self.stream - 1)).await?;
        loop {
            self.awaited().await?;
            self.note(|progress| progress.tries += 1);
            let mut silent = false;
            let end = match self.connect().await? {
                Ok(session) => {
                    silent = self.intake.is_awaited();
                    retry = RETRY.0;
                    let latency = session.latency;
                    self.say(Said::Event(PublishEvent::Connected { latency })).await;
                    self.publish(session).await?
                }
                Err(end) => end,
            };
            self.say(Said::Event(PublishEvent::Closed(end))).await;
            let again = (self.reconnect || silent) && end.worth_a_retry() && !*self.stop.borrow();
            if !again {
                self.note(|progress| progress.end = Some(end));
                return match end {
                    PublishEnd::Finished => Ok(()),
                    end => Err(PushError::Ended { stream: self.stream, end }),
                };
            }
            self.pass(retry).await?;
            retry = (retry * 2).min(RETRY.1);
        }
    }

    /// Until an encoder over SRT sends: a receiver closes a publisher that brings nothing for 5 s, which is no end here.
    async fn awaited(&mut self) -> Result<(), PushError> {
        if self.intake.is_awaited() && !*self.stop.borrow() {
            tokio::select! {
                Ok(()) = self.stop.changed() => {}
                media = self.intake.next() => drop(media.map_err(|source| self.trouble(source))?),
            }
        }
        Ok(())
    }

    /// What the source gives meanwhile is lost, as an encoder's would be.
    async fn connect(&mut self) -> Result<Result<Session, PublishEnd>, PushError> {
        if *self.stop.borrow() {
            return Ok(Err(PublishEnd::Finished));
        }
        let (endpoint, url, peer, rate) = (self.endpoint.clone(), self.url.clone(), self.peer, self.rate.clone());
        let config = self.config.clone();
        let connecting = Session::connect(&endpoint, config, &url, peer, rate);
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                session = &mut connecting => return Ok(session),
                Ok(()) = self.stop.changed() => return Ok(Err(PublishEnd::Finished)),
                media = self.intake.next(), if self.intake.runs() => {
                    if media.map_err(|source| self.trouble(source))?.is_none() {
                        return Ok(Err(PublishEnd::Finished));
                    }
                }
            }
        }
    }

    async fn publish(&mut self, mut session: Session) -> Result<PublishEnd, PushError> {
        self.note(|progress| progress.connected = true);
        let went = loop {
            tokio::select! {
                biased;
                Ok(()) = self.stop.changed() => break Went::Over,
                news = session.news() => match news {
                    News::Nothing => {}
                    News::Shorter(length) => self.say(Said::Shorter(length)).await,
                    News::Closed(end) => break Went::Ended(end),
                },
                media = self.intake.next() => match media.map_err(|source| self.trouble(source))? {
                    Some(media) => session.send(SystemClock::mono(), media),
                    None => break Went::Over,
                },
            }
            let (publish, feed) = (session.stats(), self.intake.stats());
            self.note(|progress| (progress.publish, progress.feed) = (publish, feed));
        };
        let (end, publish) = match went {
            Went::Over => session.finish().await,
            Went::Ended(end) => (end, session.stats()),
        };
        let feed = self.intake.stats();
        self.note(|progress| (progress.connected, progress.publish, progress.feed) = (false, publish, feed));
        Ok(end)
    }

    /// Time goes by, and the source with it.
    async fn pass(&mut self, span: Duration) -> Result<(), PushError> {
        let over = sleep(span);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                Ok(()) = self.stop.changed() => return Ok(()),
                media = self.intake.next(), if self.intake.runs() => {
                    // One that has ended ends the next connection.
                    if media.map_err(|source| self.trouble(source))?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn trouble(&self, source: io::Error) -> PushError {
        PushError::File { path: self.name.clone(), source }
    }

    async fn say(&self, said: Said) {
        // Whoever runs this hears it until the end.
        drop(self.say.send((self.stream, said)).await);
    }

    fn note(&self, change: impl FnOnce(&mut StreamProgress)) {
        if let Some(progress) = self.board.borrow_mut().get_mut(self.stream as usize - 1) {
            change(progress);
        }
    }
}
