//! What each path answers.

use std::backtrace::Backtrace;
use std::convert::Infallible;
use std::path::PathBuf;

use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};

type Body = BoxBody<Bytes, Infallible>;

/// What the pages are made of.
pub struct Site {
    /// The pod's name, where it does not call itself something else.
    pub hostname: String,
    /// Which of the program's versions this is.
    pub version: String,
    /// The file that /login is made of.
    pub template: PathBuf,
    /// Whether requests are kept from the log.
    pub quiet: bool,
}

impl Site {
    /// Answers, and says so.
    pub async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let response = self.page(request).await;
        if !self.quiet {
            let agent = request.headers().get(header::USER_AGENT);
            let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("-");
            println!(
                "{} {} {} {agent}",
                request.method(),
                request.uri(),
                response.status().as_u16()
            );
        }
        response
    }

    async fn page(&self, request: &Request<Incoming>) -> Response<Body> {
        let uri = request.uri();
        let path = uri.path();
        if let Some(code) = path.strip_prefix("/status/") {
            return match code.parse() {
                Ok(code) => text(code, format!("{code}\n")),
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{code}: {error}\n")),
            };
        }
        // So many redirects, then a page.
        if let Some(left) = path.strip_prefix("/redirects/") {
            return match left.parse::<u32>() {
                Ok(0) => text(StatusCode::OK, "arrived\n"),
                Ok(left) => redirect(&format!("/redirects/{}", left - 1)),
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{left}: {error}\n")),
            };
        }
        match path {
            "/" => text(StatusCode::OK, format!("web {} on {}\n", self.version, self.hostname)),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/login" => self.login(),
            // What was asked, as it came.
            "/echo" => {
                let mut lines = format!("{} {uri}\n", request.method());
                for (name, value) in request.headers() {
                    lines += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
                }
                text(StatusCode::OK, lines)
            }
            // To wherever the query says.
            "/redirect" => redirect(uri.query().unwrap_or("/")),
            "/loop" => redirect("/loop"),
            "/hang" => std::future::pending().await,
            "/endless" => {
                let zeros = futures::stream::repeat(Bytes::from_static(&[b'0'; 4096]));
                Response::new(BodyExt::boxed(StreamBody::new(
                    zeros.map(|zeros| Ok(Frame::data(zeros))),
                )))
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn login(&self) -> Response<Body> {
        match std::fs::read_to_string(&self.template) {
            Ok(template) => {
                let page = template
                    .replace("{hostname}", &self.hostname)
                    .replace("{version}", &self.version);
                let mut response = text(StatusCode::OK, page);
                let html = header::HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                response
            }
            Err(error) => {
                let stack = Backtrace::force_capture();
                eprintln!("error: {}: {error}\nstack backtrace:\n{stack}", self.template.display());
                text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n")
            }
        }
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.into())).boxed());
    *response.status_mut() = status;
    response
}

fn redirect(to: &str) -> Response<Body> {
    match header::HeaderValue::from_str(to) {
        Ok(location) => {
            let mut response = text(StatusCode::FOUND, "");
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{to}: {error}\n")),
    }
}
