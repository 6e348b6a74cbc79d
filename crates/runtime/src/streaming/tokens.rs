//! Sessions that were asked for and not yet opened, under single-use tokens.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cri::streaming::Session;

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(60);

/// Sessions that may wait at once.
const MAX_WAITING: usize = 1000;

/// The waiting sessions.
#[derive(Default)]
pub(super) struct Tokens {
    sessions: HashMap<String, Session>,
    /// Tokens with the moment of their end, in the order of both.
    ends: VecDeque<(Instant, String)>,
}

impl Tokens {
    /// Keeps a session; `None` when too many wait.
    pub(super) fn insert(&mut self, session: Session, now: Instant) -> Option<String> {
        self.expire(now);
        if self.sessions.len() >= MAX_WAITING {
            return None;
        }
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        self.sessions.insert(token.clone(), session);
        self.ends.push_back((now + LIFETIME, token.clone()));
        Some(token)
    }

    /// Gives a session out, once.
    pub(super) fn take(&mut self, token: &str, now: Instant) -> Option<Session> {
        self.expire(now);
        self.sessions.remove(token)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, token)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            self.sessions.remove(&token);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::*;

    fn session() -> Session {
        Session::PortForward {
            pod_sandbox_id: "box".to_owned(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let (mut tokens, start) = (Tokens::default(), Instant::now());
        let first = tokens.insert(session(), start).unwrap();
        let second = tokens.insert(session(), start + Duration::from_secs(30)).unwrap();
        let third = tokens.insert(session(), start + Duration::from_secs(30)).unwrap();
        assert_eq!(tokens.take("other", start), None);
        assert_eq!(tokens.take(&second, start + Duration::from_secs(59)), Some(session()));
        assert_eq!(tokens.take(&second, start + Duration::from_secs(59)), None);
        assert_eq!(tokens.take(&first, start + Duration::from_secs(60)), None);
        assert_eq!(tokens.take(&third, start + Duration::from_secs(89)), Some(session()));
    }

    #[test]
    fn no_more_wait_than_fit() {
        let (mut tokens, start) = (Tokens::default(), Instant::now());
        for _ in 0..MAX_WAITING {
            assert!(tokens.insert(session(), start).is_some());
        }
        assert_eq!(tokens.insert(session(), start), None);
        assert!(tokens.insert(session(), start + LIFETIME).is_some());
    }
}
