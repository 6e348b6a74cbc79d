//! The grammar of label selectors: a scanner and a parser with one token of look-ahead.

use std::collections::BTreeSet;

use super::SelectorError;
use super::labels::{Operator, Requirement, check_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Word(&'a str),
    Open,
    Close,
    Comma,
    Not,
    Equals(&'a str),
    NotEquals,
    Greater,
    Less,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::End => "",
            Token::Word(text) | Token::Equals(text) => text,
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::Not => "!",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
        }
    }
}

fn special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The next token of `text`, and what follows it.
fn scan(text: &str) -> (Token<'_>, &str) {
    let text = text.trim_start_matches(space);
    let Some(first) = text.chars().next() else {
        return (Token::End, text);
    };
    if !special(first) {
        let end = text.find(|c| special(c) || space(c)).unwrap_or(text.len());
        return (Token::Word(&text[..end]), &text[end..]);
    }
    for (symbol, token) in [("==", Token::Equals("==")), ("!=", Token::NotEquals)] {
        if let Some(rest) = text.strip_prefix(symbol) {
            return (token, rest);
        }
    }
    let token = match first {
        '=' => Token::Equals("="),
        '!' => Token::Not,
        '(' => Token::Open,
        ')' => Token::Close,
        ',' => Token::Comma,
        '>' => Token::Greater,
        _ => Token::Less,
    };
    (token, &text[1..])
}

pub(super) struct Parser<'a> {
    rest: &'a str,
}

fn fail<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Parser { rest: text }
    }

    fn peek(&self) -> Token<'a> {
        scan(self.rest).0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = scan(self.rest);
        self.rest = rest;
        token
    }

    pub(super) fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Not => {}
                Token::End => return Ok(requirements),
                other => {
                    return fail(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.text()
                    ));
                }
            }
            let requirement = self
                .requirement()
                .map_err(|SelectorError(error)| SelectorError(format!("unable to parse requirement: {error}")))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Comma => match self.peek() {
                    Token::Word(_) | Token::Not => {}
                    other => return fail(format!("found '{}', expected: identifier after ','", other.text())),
                },
                other => return fail(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next();
        let negated = token == Token::Not;
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return fail(format!("found '{}', expected: identifier", token.text()));
        };
        check_key(key)?;
        if negated {
            return Requirement::checked(key, Operator::DoesNotExist, BTreeSet::new(), false);
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::checked(key, Operator::Exists, BTreeSet::new(), false);
        }
        let (operator, exact) = match self.next() {
            Token::Word("in") => (Operator::In, false),
            Token::Word("notin") => (Operator::NotIn, false),
            Token::Equals(_) => (Operator::In, true),
            Token::NotEquals => (Operator::NotIn, true),
            Token::Greater => (Operator::GreaterThan, true),
            Token::Less => (Operator::LessThan, true),
            other => {
                return fail(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        };
        let values = if exact { self.one_value()? } else { self.values()? };
        Requirement::checked(key, operator, values, exact)
    }

    fn one_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.peek() {
            Token::End | Token::Comma => Ok(BTreeSet::from([String::new()])),
            Token::Word(value) => {
                self.next();
                Ok(BTreeSet::from([value.to_owned()]))
            }
            other => fail(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a, b)`. Between, before and after commas a value may be missing; it is the empty one.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            other => return fail(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = BTreeSet::new();
        match self.peek() {
            Token::Close => {
                self.next();
                return Ok(values);
            }
            Token::Word(_) | Token::Comma => {}
            other => return fail(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
        loop {
            match self.peek() {
                Token::Word(value) => {
                    self.next();
                    values.insert(value.to_owned());
                }
                Token::Comma | Token::Close => {
                    values.insert(String::new());
                }
                other => return fail(format!("found '{}', expected: ',', or identifier", other.text())),
            }
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                other => return fail(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}
