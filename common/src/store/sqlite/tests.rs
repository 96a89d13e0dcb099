use tempfile::TempDir;

use super::SqliteStore;
use crate::{
    config::DatabaseConfig,
    store::{Store as _, conformance::Fixture},
};

fn config(folder: &TempDir) -> DatabaseConfig {
    let file = folder.path().join("new").join("inferq.db");
    DatabaseConfig {
        url: format!("sqlite://{}", file.display()).into(),
        max_connections: 4,
        acquire_timeout_ms: 5000,
        max_group: 256,
    }
}

async fn fixture() -> Fixture {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&config(&folder)).unwrap();
    store.migrate().await.unwrap();
    Fixture::new(std::sync::Arc::new(store), folder)
}

crate::store_conformance!(fixture().await);
