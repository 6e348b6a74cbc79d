//! `/logs/`: the node's own log files, as upstream's kubelet shows them: a web server of static files.
//!
//! A pod can be given a part of that directory to write, so no link is followed that leads out of it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LAST_MODIFIED, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::respond::{Body, plain, whole};

/// Where they are.
pub(super) const DIRECTORY: &str = "/var/log";
/// What is read at once.
const BLOCK: usize = 64 * 1024;
/// So much of a file tells what it is.
const SNIFFED: usize = 512;
/// What a path does not have as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b'=')
    .remove(b'@');

/// What a path leads to.
enum Found {
    /// What is in it, in order.
    Directory(Vec<String>),
    File {
        file: File,
        size: u64,
        modified: Option<Timestamp>,
        kind: &'static str,
    },
}

/// Answers with what `path` has, which begins below `root`.
pub(super) async fn respond(root: &'static Path, path: &str) -> Response<Body> {
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let found = tokio::task::spawn_blocking(move || find(root, &path)).await;
    match found.map_err(io::Error::other).and_then(|found| found) {
        Ok(Found::Directory(_)) if !name.is_empty() => moved(&name),
        Ok(Found::Directory(names)) => {
            let mut response = Response::new(whole(listing(&names)));
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Ok(Found::File {
            file,
            size,
            modified,
            kind,
        }) => {
            // What is written meanwhile is for the next who asks.
            let reader = tokio::fs::File::from_std(file).take(size);
            let frames = ReaderStream::with_capacity(reader, BLOCK).map_ok(Frame::data);
            let mut response = Response::new(StreamBody::new(frames).boxed());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
            let modified = modified.map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
            if let Some(at) = modified.and_then(|at| HeaderValue::try_from(at).ok()) {
                headers.insert(LAST_MODIFIED, at);
            }
            response
        }
        Err(error) => refused(&error),
    }
}

/// A directory's names lead on only behind a slash.
fn moved(name: &str) -> Response<Body> {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(there) = HeaderValue::try_from(format!("{}/", escaped_path(name))) {
        response.headers_mut().insert(LOCATION, there);
    }
    response
}

fn refused(error: &io::Error) -> Response<Body> {
    let code = error.raw_os_error().map(Errno::from_raw);
    match code {
        Some(Errno::ENOENT | Errno::ENOTDIR) => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        Some(Errno::EXDEV | Errno::ELOOP | Errno::EACCES | Errno::EPERM | Errno::ENXIO) => {
            plain(StatusCode::FORBIDDEN, "403 Forbidden\n")
        }
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n"),
    }
}

fn find(root: &Path, path: &str) -> io::Result<Found> {
    let path = match path.trim_matches('/') {
        "" => ".",
        path => path,
    };
    let how = OpenHow::new()
        // Whoever writes to a pipe is not waited for.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(File::open(root)?, path, how)?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        let entries = fs::read_dir(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let name = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            Ok(format!("{}{slash}", entry.file_name().to_string_lossy()))
        };
        let mut names = entries.map(name).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        return Ok(Found::Directory(names));
    }
    if !metadata.is_file() {
        return Err(Errno::EPERM.into());
    }
    let mut beginning = [0; SNIFFED];
    let read = file.read_at(&mut beginning, 0)?;
    Ok(Found::File {
        size: metadata.len(),
        modified: metadata.modified().ok().and_then(|at| Timestamp::try_from(at).ok()),
        kind: kind(&beginning[..read]),
        file,
    })
}

fn kind(beginning: &[u8]) -> &'static str {
    let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    if beginning.starts_with(&[0x1f, 0x8b, 8]) {
        "application/x-gzip"
    } else if beginning.iter().any(control) {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    }
}

fn listing(names: &[String]) -> String {
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        page += &format!("<a href=\"{}\">{}</a>\n", escaped_path(name), escaped_text(name));
    }
    page + "</pre>\n"
}

fn escaped_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&#34;",
            '\'' => escaped += "&#39;",
            char => escaped.push(char),
        }
    }
    escaped
}

/// A name as a relative address: one with a colon before any slash would be an absolute one.
fn escaped_path(name: &str) -> String {
    let here = if name.contains(':') { "./" } else { "" };
    format!("{here}{}", utf8_percent_encode(name, ESCAPED))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("log/pods/p")).unwrap();
        fs::write(at("log/syslog"), "line\n").unwrap();
        fs::write(at("log/pods/p/0.log"), [0]).unwrap();
        fs::write(at("outside"), "").unwrap();
        symlink("pods/p/0.log", at("log/newest")).unwrap();
        symlink("../outside", at("log/out")).unwrap();
        symlink(at("outside"), at("log/absolute")).unwrap();
        symlink("/proc/self/fd", at("log/fd")).unwrap();
        nix::unistd::mkfifo(&at("log/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = |path: &str| match find(&at("log"), path) {
            Ok(Found::Directory(names)) => names.join(" "),
            Ok(Found::File { size, kind, .. }) => format!("{size} {kind}"),
            Err(error) => refused(&error).status().as_str().to_owned(),
        };
        for (path, expected) in [
            ("", "absolute fd newest out pipe pods/ syslog"),
            ("pods/", "p/"),
            ("pods", "p/"),
            ("syslog", "5 text/plain; charset=utf-8"),
            ("pods/p/0.log", "1 application/octet-stream"),
            ("newest", "1 application/octet-stream"),
            ("pods/../syslog", "5 text/plain; charset=utf-8"),
            ("none", "404"),
            ("syslog/none", "404"),
            ("out", "403"),
            ("absolute", "403"),
            ("fd/0", "403"),
            ("../outside", "403"),
            ("pipe", "403"),
        ] {
            assert_eq!(found(path), expected, "{path}");
        }
    }

    #[test]
    fn names_are_escaped() {
        let page = listing(&["a<b>&\"c\".log".into(), "20:30 x".into(), "pods/".into()]);
        let links: Vec<&str> = page.lines().skip(3).collect();
        assert_eq!(
            links,
            [
                "<a href=\"a%3Cb%3E&%22c%22.log\">a&lt;b&gt;&amp;&#34;c&#34;.log</a>",
                "<a href=\"./20:30%20x\">20:30 x</a>",
                "<a href=\"pods/\">pods/</a>",
                "</pre>"
            ]
        );
    }
}
