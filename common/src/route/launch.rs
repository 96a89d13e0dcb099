//! The ways to a Launch endpoint. Its models take any JSON, so that `args` never tell which.

use crate::job::Route;

pub(super) const ROUTES: &[Route] = &[Route::SyncTask, Route::AsyncTask];
