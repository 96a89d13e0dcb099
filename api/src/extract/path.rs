//! Path segments.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::ApiError;

/// The one parameter of a path, percent-decoded as a whole; what is no `T` is unknown: 404.
#[derive(Debug, Clone)]
pub struct Segment<T>(pub T);

impl<T: FromStr + Send, S: Send + Sync> FromRequestParts<S> for Segment<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Path(text) =
            axum::extract::Path::<String>::from_request_parts(parts, state)
                .await
                .map_err(|_| ApiError::no_route())?;
        text.parse().map(Self).map_err(|_| ApiError::no_route())
    }
}
