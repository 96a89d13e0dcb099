//! What every serving process is made of, put together once.

use std::{sync::Arc, time::Duration};

use inferq_api::{Api, AppState};
use inferq_common::{
    broker::{self, Event, SharedBroker},
    clock::{Clock, SystemClock},
    config::{Config, DatabaseConfig},
    egress::Guard,
    id::{AccountId, ApiKeyId, InstanceId},
    instance::{CurrentInstance, Heart, InboxHandlers, InboxHub},
    publisher::Publisher,
    shutdown::Shutdown,
    store::{self, NewInstance, SharedStore, StoreError, path::JobPath},
    sweeper::Sweeper,
    telemetry,
};
use inferq_worker::{Running, Worker};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, task::JoinSet};
use tracing::info;

use crate::exit::{Failure, code};
