//! The least a group commit needs: what arrived while one group was written is the next group.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

type Waiting<I, O> = (I, oneshot::Sender<O>);

/// Callers that share transactions.
pub struct Group<I, O>(mpsc::Sender<Waiting<I, O>>);

impl<I, O> Clone for Group<I, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: Send + 'static, O: Send + 'static> Group<I, O> {
    pub fn start<F, Fut>(tasks: &mut tokio::task::JoinSet<()>, write: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<Vec<O>>> + Send,
    {
        let (sender, mut receiver) = mpsc::channel::<Waiting<I, O>>(4096);
        tasks.spawn(async move {
            let mut group = Vec::new();
            while receiver.recv_many(&mut group, 256).await > 0 {
                let (items, waiting): (Vec<I>, Vec<_>) = group.drain(..).unzip();
                let outputs = write(items).await.expect("the floor's database works");
                for (output, waiting) in outputs.into_iter().zip(waiting) {
                    let _ = waiting.send(output);
                }
            }
        });
        Self(sender)
    }

    pub async fn add(&self, item: I) -> O {
        let (sender, receiver) = oneshot::channel();
        assert!(self.0.send((item, sender)).await.is_ok(), "the writer lives as long as the floor");
        receiver.await.expect("the writer answers each item")
    }
}
