//! Server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::response::sse;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::scheduler::{Event, Step};

/// What a channel receives, as server-sent events.
pub(super) struct Events<T> {
    channel: Receiver<T>,
    /// Sent after the last one; then the stream ends.
    last: Option<sse::Event>,
}

impl<T> Events<T> {
    pub(super) fn new(channel: Receiver<T>, last: sse::Event) -> Self {
        Self { channel, last: Some(last) }
    }
}

impl<T: Into<sse::Event>> Stream for Events<T> {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let received = self.channel.poll_recv(context);
        received.map(|event| event.map(Into::into).or_else(|| self.last.take()).map(Ok))
    }
}

/// An event with a name and JSON.
pub(super) fn event(name: &str, data: &Value) -> sse::Event {
    sse::Event::default().event(name).data(data.to_string())
}

impl From<Event> for sse::Event {
    fn from(found: Event) -> Self {
        match found {
            Event::Start(x_t) => event("start", &json!({ "x_t": STANDARD.encode(x_t) })),
            Event::Step(Step { index, total, t, signal, noise, x_t, x_start }) => event(
                "step",
                &json!({
                    "index": index, "total": total, "t": t, "signal": signal, "noise": noise,
                    "x_t": STANDARD.encode(x_t), "x_start": STANDARD.encode(x_start),
                }),
            ),
            Event::Failed(message) => event("failed", &json!({ "message": message })),
        }
    }
}
