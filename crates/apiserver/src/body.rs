//! Bodies of requests and answers: bytes that are there, or a stream.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

/// Any error of a body's source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body: nothing, bytes that are already there, or a stream of them.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    /// A body without a byte.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body that another one feeds.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(body.map_err(Into::into).boxed_unsync()))
    }

    /// All bytes, up to `limit`; `None` when there are more.
    pub(crate) async fn collect(self, limit: usize) -> Result<Option<Bytes>, BoxError> {
        match self.0 {
            Kind::Empty => Ok(Some(Bytes::new())),
            Kind::Full(bytes) => Ok((bytes.len() <= limit).then_some(bytes)),
            Kind::Stream(mut stream) => {
                let mut first = Bytes::new();
                let mut rest = Vec::new();
                while let Some(frame) = stream.frame().await {
                    let Ok(data) = frame?.into_data() else {
                        continue;
                    };
                    if first.len() + rest.len() + data.len() > limit {
                        return Ok(None);
                    }
                    // Nearly every request comes in one piece, which then is not copied.
                    if first.is_empty() && rest.is_empty() {
                        first = data;
                    } else {
                        if rest.is_empty() {
                            rest.extend_from_slice(&std::mem::take(&mut first));
                        }
                        rest.extend_from_slice(&data);
                    }
                }
                Ok(Some(if rest.is_empty() { first } else { rest.into() }))
            }
        }
    }

    /// The bytes, when they are already there.
    pub(crate) fn ready(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Empty => Some(&[]),
            Kind::Full(bytes) => Some(bytes),
            Kind::Stream(_) => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body::Empty"),
            Kind::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Full(bytes)
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}
