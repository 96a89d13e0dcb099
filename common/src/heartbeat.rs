//! The heartbeat of a process, on a thread of its own.
//!
//! In the runtime that does the work it would wait with everything else, and a process with more to
//! do than its cores can would be held for lost: others would run again what it runs, and streams
//! that have begun would fail. A runtime that hangs is another matter: its heartbeat lapses.

use std::{io, pin::pin, sync::Arc, thread, time::Duration};

use tokio::{
    runtime,
    sync::{oneshot, watch, watch::error::RecvError},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

use crate::{
    clock::Clock,
    config::DatabaseConfig,
    instance::{CurrentInstance, Identity, keep_alive},
    store::{self, SharedStore, StoreError},
};

/// How often the runtime of the process shows that it still runs tasks.
const PULSE_EVERY: Duration = Duration::from_secs(1);
/// A runtime that has run no task for so long hangs: load alone delays a task by a second or two.
pub const HUNG_AFTER: Duration = Duration::from_secs(10);

/// Why there is no heartbeat.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The system gives no further thread or file descriptor.
    #[error("the heartbeat has no thread")]
    Thread(#[from] io::Error),
    #[error("the heartbeat has no store")]
    Store(#[from] StoreError),
}

/// Keeps this process alive in the eyes of the others, see [`keep_alive`]; dropping it ends that.
#[derive(Debug)]
pub struct Heartbeat {
    stop: DropGuard,
    /// Closed when the thread is at its end.
    ended: oneshot::Receiver<()>,
    /// The task that shows that the runtime runs tasks.
    pulse: JoinSet<()>,
}

impl Heartbeat {
    /// Registers this process and renews its heartbeat until [`Self::stop`].
    ///
    /// With Postgres it has a connection of its own: those of `shared` are read by the runtime of the
    /// caller, when that gets to it. A SQLite file has one writer, which is `shared`'s.
    ///
    /// # Errors
    /// When there can be no further thread, or when the database's URL cannot be read.
    pub async fn start(
        database: &DatabaseConfig,
        shared: &SharedStore,
        clock: Arc<dyn Clock>,
        identity: Identity,
        current: CurrentInstance,
    ) -> Result<Self, HeartbeatError> {
        let database = DatabaseConfig { max_connections: 1, ..database.clone() };
        let life = Life { database, shared: Arc::clone(shared), clock, identity, current };
        Self::of(life, HUNG_AFTER).await
    }

    async fn of(life: Life, hung_after: Duration) -> Result<Self, HeartbeatError> {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let (opened, opening) = oneshot::channel();
        let (ending, ended) = oneshot::channel::<()>();
        let (pulse, felt) = watch::channel(());
        let run = move || {
            let _ending = ending;
            match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(own) => own.block_on(while_felt(felt, hung_after, life.live(token, opened))),
                Err(error) => drop(opened.send(Err(error.into()))),
            }
        };
        thread::Builder::new().name("heartbeat".to_owned()).spawn(run)?;
        opening.await.unwrap_or_else(|_| Err(io::Error::other("its thread panicked").into()))?;
        let mut shows = JoinSet::new();
        shows.spawn(async move {
            loop {
                pulse.send_replace(());
                sleep(PULSE_EVERY).await;
            }
        });
        Ok(Self { stop: stop.drop_guard(), ended, pulse: shows })
    }

    /// Retires this process. Do it last: what is not finished by then goes to others.
    pub async fn stop(self) {
        let Self { stop, ended, pulse } = self;
        drop(stop);
        // Closed, not sent to.
        let _ = ended.await;
        drop(pulse);
    }
}

/// What is kept alive, and where.
struct Life {
    /// Of one connection.
    database: DatabaseConfig,
    shared: SharedStore,
    clock: Arc<dyn Clock>,
    identity: Identity,
    current: CurrentInstance,
}

impl Life {
    /// Tells once that the store is open, or why it is not.
    async fn live(
        self,
        stop: CancellationToken,
        opened: oneshot::Sender<Result<(), HeartbeatError>>,
    ) {
        let own =
            match (!self.database.is_sqlite()).then(|| store::open(&self.database)).transpose() {
                Ok(own) => own,
                Err(error) => return drop(opened.send(Err(error.into()))),
            };
        let _ = opened.send(Ok(()));
        let store = own.as_ref().unwrap_or(&self.shared);
        keep_alive(Arc::clone(store), self.clock, self.identity, self.current, stop).await;
        if let Some(own) = own {
            own.close().await;
        }
    }
}

/// Runs `beats`, which rest once there was no pulse for `hung_after`, until there is one again.
async fn while_felt(
    mut pulse: watch::Receiver<()>,
    hung_after: Duration,
    beats: impl Future<Output = ()>,
) {
    let mut beats = pin!(beats);
    loop {
        tokio::select! {
            () = &mut beats => return,
            silent = silence(&mut pulse, hung_after) => {
                if silent.is_err() {
                    // Nobody is left to hang; they were told to stop.
                    return beats.await;
                }
            }
        }
        let silent_secs = hung_after.as_secs();
        error!(silent_secs, "this process hangs; others take over what it runs");
        if pulse.changed().await.is_ok() {
            warn!("this process goes on after it hung");
        }
    }
}

/// Waits until no pulse was felt for so long.
///
/// # Errors
/// When there will be no pulse any more.
async fn silence(pulse: &mut watch::Receiver<()>, long: Duration) -> Result<(), RecvError> {
    while let Ok(felt) = timeout(long, pulse.changed()).await {
        felt?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use tempfile::TempDir;

    use super::*;
    use crate::{clock::SystemClock, id::InstanceId};

    /// A process whose runtime runs only while [`Self::run`] does, and a store that others read too.
    struct Process {
        _folder: TempDir,
        config: DatabaseConfig,
        store: SharedStore,
        current: CurrentInstance,
        own: runtime::Runtime,
        others: runtime::Runtime,
    }

    impl Process {
        fn new() -> Self {
            let others = a_runtime();
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}", folder.path().join("store.db").display());
            let config = DatabaseConfig {
                url: url.into(),
                max_connections: 1,
                acquire_timeout_ms: 5000,
                max_group: 256,
            };
            let store = others.block_on(async {
                let store = store::open(&config).unwrap();
                store.migrate().await.unwrap();
                store
            });
            let current = CurrentInstance::new(InstanceId::new(DateTime::<Utc>::UNIX_EPOCH));
            Self { _folder: folder, config, store, current, own: a_runtime(), others }
        }

        fn run<T>(&self, what: impl Future<Output = T>) -> T {
            self.own.block_on(async { timeout(Duration::from_secs(20), what).await.unwrap() })
        }

        /// Starts the heartbeat and waits until the others know of the process.
        fn start(&self, hung_after: Duration) -> Heartbeat {
            let life = Life {
                database: self.config.clone(),
                shared: Arc::clone(&self.store),
                clock: Arc::new(SystemClock),
                identity: Identity { role: "worker", host: "test".into(), alone: false },
                current: self.current.clone(),
            };
            self.run(async {
                let heartbeat = Heartbeat::of(life, hung_after).await.unwrap();
                self.current.fresh().await;
                heartbeat
            })
        }

        /// Whom the others hold for lost if silent for so long.
        fn lost_after(&self, grace: Duration) -> Vec<InstanceId> {
            self.others.block_on(self.store.judge(grace)).unwrap()
        }
    }

    fn a_runtime() -> runtime::Runtime {
        runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_process_that_is_only_busy_is_not_lost() {
        let process = Process::new();
        let heartbeat = process.start(HUNG_AFTER);
        let id = process.current.id();
        thread::sleep(Duration::from_millis(3500));
        assert_eq!(process.lost_after(Duration::from_millis(2500)), []);
        process.run(heartbeat.stop());
        assert!(!process.others.block_on(process.store.heartbeat(id)).unwrap(), "it has retired");
    }

    #[test]
    fn a_process_that_hangs_is_lost_and_comes_back_when_it_goes_on() {
        let process = Process::new();
        let heartbeat = process.start(Duration::from_secs(2));
        let id = process.current.id();
        thread::sleep(Duration::from_millis(4500));
        assert_eq!(process.lost_after(Duration::from_secs(1)), [id]);
        process.run(process.current.replaced(id));
        process.run(process.current.fresh());
        process.run(heartbeat.stop());
    }

    #[test]
    fn a_process_that_gives_up_its_start_retires() {
        let process = Process::new();
        let heartbeat = process.start(HUNG_AFTER);
        let ended = process.run(async {
            let Heartbeat { stop, ended, pulse } = heartbeat;
            drop((stop, pulse));
            ended.await
        });
        assert!(ended.is_err(), "the thread ends");
        let id = process.current.id();
        assert!(!process.others.block_on(process.store.heartbeat(id)).unwrap());
    }
}
