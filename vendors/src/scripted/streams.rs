//! Streams whose course the name of the model tells.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use inferq_common::error::ErrorClass;
use tokio::{sync::watch, time::sleep};

use super::{Scripted, failure};
use crate::{Chunk, Chunks};

/// How one stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    n_chunks: u64,
    /// Before each chunk.
    pause: Duration,
    then: Then,
}

/// What comes after the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Ends,
    Fails,
    IsCut,
    Hangs,
    Panics,
    /// As many chunks again and the end, once the calls are released.
    WaitsAndGoesOn,
}

impl Course {
    /// Of a model, if its name tells one.
    pub(super) fn of(model: &str) -> Option<Self> {
        let name = model.strip_prefix("stream_")?;
        let then = match name {
            "then_fails" => Then::Fails,
            "then_cut" => Then::IsCut,
            "then_hangs" => Then::Hangs,
            "then_panics" => Then::Panics,
            "held" => Then::WaitsAndGoesOn,
            _ => {
                let (number, millis) = name.split_once("_every_").unwrap_or((name, "0"));
                let pause = Duration::from_millis(millis.parse().ok()?);
                return Some(Self { n_chunks: number.parse().ok()?, pause, then: Then::Ends });
            }
        };
        Some(Self { n_chunks: 2, pause: Duration::ZERO, then })
    }

    /// The stream; `guard` is dropped with it.
    pub(super) fn run(self, released: watch::Receiver<bool>, guard: impl Send + 'static) -> Chunks {
        let state = State { next: 0, is_over: false, released, guard };
        stream::unfold(state, move |state| self.step(state)).boxed()
    }

    async fn step<G>(
        self,
        mut state: State<G>,
    ) -> Option<(Result<Chunk, crate::VendorError>, State<G>)> {
        if state.is_over {
            return None;
        }
        if state.next == self.n_chunks {
            match self.then {
                Then::Ends => {}
                Then::Fails => {
                    state.is_over = true;
                    return Some((Err(failure(ErrorClass::Transient, None)), state));
                }
                Then::IsCut => return None,
                Then::Hangs => std::future::pending().await,
                Then::Panics => panic!("the model 'stream_then_panics' was streamed"),
                Then::WaitsAndGoesOn => {
                    // The sender lives as long as the vendor.
                    let _ = state.released.wait_for(|&released| released).await;
                }
            }
        }
        let n_all = if self.then == Then::WaitsAndGoesOn { 2 } else { 1 } * self.n_chunks;
        if state.next == n_all {
            state.is_over = true;
            let vendor_request_id = Some("req_scripted".to_owned());
            return Some((Ok(Chunk::End { usage: Scripted::usage(), vendor_request_id }), state));
        }
        if !self.pause.is_zero() {
            sleep(self.pause).await;
        }
        let chunk = Chunk::Data(Scripted::chunk(state.next).into());
        state.next += 1;
        Some((Ok(chunk), state))
    }
}

struct State<G> {
    next: u64,
    is_over: bool,
    released: watch::Receiver<bool>,
    #[expect(dead_code, reason = "it is held until the stream is dropped")]
    guard: G,
}
