//! Questions in, answers out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hickory_proto::{
    op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode},
    rr::{LowerName, Name, Record, RecordType},
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use parking_lot::RwLock;

use super::{
    forward::{Forwarder, Found},
    zone::{Answer, Followed, Zone},
};

/// The largest answer in one packet: what every path passes in one piece.
const PAYLOAD: u16 = 1232;

/// The most time that an answer from elsewhere takes: clients ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// The same where the cluster has an answer of its own.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// Answers from the zone, or from the machine's resolvers.
pub(super) struct Handler {
    zone: Arc<RwLock<Zone>>,
    forwarder: Forwarder,
    /// Answers of several addresses begin with another one each time.
    turn: AtomicUsize,
}

/// The parts of a response.
#[derive(Default)]
struct Response {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Handler {
    pub(super) fn new(zone: Arc<RwLock<Zone>>, forwarder: Forwarder) -> Handler {
        Handler {
            zone,
            forwarder,
            turn: AtomicUsize::new(0),
        }
    }

    async fn respond(&self, question: &LowerName, original: &Name, kind: RecordType) -> Response {
        let (followed, authority) = {
            let zone = self.zone.read();
            (zone.follow(original, kind), zone.authority())
        };
        let Followed { aliases, name, answer } = followed;
        if !aliases.is_empty() {
            // What is known of the last name, be it nothing, is added to what led there.
            let last = match answer {
                Answer::Elsewhere => self.ask(&name, kind, PATIENCE).await,
                Answer::ElsewhereOr(own) => self.ask_or(&name, kind, *own).await,
                own => self.own(own, None),
            };
            let mut answers = aliases;
            answers.extend(last.answers);
            return Response {
                authoritative: true,
                answers,
                ..Response::default()
            };
        }
        match answer {
            Answer::Elsewhere => self.ask(&Name::from(question), kind, PATIENCE).await,
            Answer::ElsewhereOr(own) => self.ask_or(&Name::from(question), kind, *own).await,
            own => self.own(own, authority),
        }
    }

    /// What the zone itself says.
    fn own(&self, answer: Answer, authority: Option<Record>) -> Response {
        let negative = |code| Response {
            code,
            authoritative: true,
            authorities: authority.into_iter().collect(),
            ..Response::default()
        };
        match answer {
            Answer::Found {
                mut answers,
                additionals,
            } => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % answers.len().max(1);
                answers.rotate_left(turn);
                Response {
                    authoritative: true,
                    answers,
                    additionals,
                    ..Response::default()
                }
            }
            Answer::NoName => negative(ResponseCode::NXDomain),
            Answer::Alias(record, _) => Response {
                authoritative: true,
                answers: vec![*record],
                ..Response::default()
            },
            Answer::Nothing | Answer::Elsewhere | Answer::ElsewhereOr(_) => negative(ResponseCode::NoError),
        }
    }

    /// Asks for a name that is the cluster's only when nobody else has it. The answer is not one of the cluster's domain.
    async fn ask_or(&self, name: &Name, kind: RecordType, own: Answer) -> Response {
        let outside = self.ask(name, kind, SHORT_PATIENCE).await;
        match outside.code {
            ResponseCode::NoError => outside,
            _ => Response {
                authoritative: false,
                ..self.own(own, None)
            },
        }
    }

    async fn ask(&self, name: &Name, kind: RecordType, patience: Duration) -> Response {
        match tokio::time::timeout(patience, self.forwarder.look_up(name, kind)).await {
            Ok(Found::Records(answers)) => Response {
                answers,
                ..Response::default()
            },
            Ok(Found::Nothing { code, authority }) => Response {
                code,
                authorities: authority.into_iter().map(|record| *record).collect(),
                ..Response::default()
            },
            Ok(Found::Failed) | Err(_) => Response {
                code: ResponseCode::ServFail,
                ..Response::default()
            },
        }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let response = match (request.metadata.op_code, request.request_info()) {
            (OpCode::Query, Ok(info)) => {
                let query = info.query;
                self.respond(query.name(), query.original().name(), query.query_type())
                    .await
            }
            (OpCode::Query, Err(_)) => Response {
                code: ResponseCode::FormErr,
                ..Response::default()
            },
            _ => Response {
                code: ResponseCode::NotImp,
                ..Response::default()
            },
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = response.code;
        metadata.authoritative = response.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, PAYLOAD));
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(
            metadata,
            &response.answers,
            &response.authorities,
            [],
            &response.additionals,
        );
        match handle.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "sending an answer");
                metadata.response_code = ResponseCode::ServFail;
                Header {
                    metadata,
                    counts: HeaderCounts::default(),
                }
                .into()
            }
        }
    }
}
