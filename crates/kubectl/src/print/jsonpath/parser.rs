//! From a template's text to its parts. Mistakes are worded as upstream words them.

use serde_json::{Number, Value};

use super::{Compare, Node, Operand, Step, plain};

/// The parts of a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser {
        rest: text.chars().collect(),
        at: 0,
    };
    parser.nodes(false)
}

struct Parser {
    rest: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn eat(&mut self, text: &str) -> bool {
        let matches = text
            .chars()
            .enumerate()
            .all(|(offset, c)| self.rest.get(self.at + offset) == Some(&c));
        if matches {
            self.at += text.chars().count();
        }
        matches
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn nodes(&mut self, in_range: bool) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        let mut text = String::new();
        while let Some(next) = self.next() {
            if next != '{' {
                text.push(next);
                continue;
            }
            if !text.is_empty() {
                nodes.push(Node::Text(std::mem::take(&mut text)));
            }
            self.spaces();
            if self.word("end") {
                self.close()?;
                if in_range {
                    return Ok(nodes);
                }
                return Err("not in range, nothing to end".into());
            }
            if self.word("range") {
                self.spaces();
                let path = self.path()?;
                self.close()?;
                let body = self.nodes(true)?;
                nodes.push(Node::Range(path, body));
                continue;
            }
            // One action may have several parts: {.a}{"x"} and {.a "x"} are the same.
            loop {
                self.spaces();
                match self.peek() {
                    Some('}') => break,
                    Some(quote @ ('"' | '\'')) => nodes.push(Node::Text(self.quoted(quote)?)),
                    Some('0'..='9' | '-') => nodes.push(Node::Text(plain(&self.number()?))),
                    Some(_) => nodes.push(Node::Path(self.path()?)),
                    None => return Err("unclosed action".into()),
                }
            }
            self.close()?;
        }
        if !text.is_empty() {
            nodes.push(Node::Text(text));
        }
        if in_range {
            return Err("unterminated range".into());
        }
        Ok(nodes)
    }

    fn word(&mut self, word: &str) -> bool {
        let after = self.rest.get(self.at + word.len());
        if after.is_none_or(|c| c.is_alphanumeric()) {
            return false;
        }
        self.eat(word)
    }

    fn close(&mut self) -> Result<(), String> {
        self.spaces();
        if self.eat("}") {
            Ok(())
        } else {
            Err("unclosed action".into())
        }
    }

    fn path(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some('$') => {
                    self.at += 1;
                    steps.push(Step::Root);
                }
                Some('@') => self.at += 1,
                Some('.') => {
                    self.at += 1;
                    if self.eat(".") {
                        steps.push(Step::Descend);
                    }
                    if self.eat("*") {
                        steps.push(Step::Wildcard);
                    } else if let Some(name) = self.name() {
                        steps.push(Step::Field(name));
                    }
                }
                Some('[') => {
                    self.at += 1;
                    steps.push(self.bracket()?);
                }
                Some('*') => {
                    self.at += 1;
                    steps.push(Step::Wildcard);
                }
                Some(c) if c.is_alphabetic() && steps.is_empty() => {
                    let name = self.name().unwrap_or_default();
                    return Err(format!("unrecognized identifier {name}"));
                }
                Some(c) if c.is_whitespace() || matches!(c, '}' | ')' | ']' | ',' | '=' | '!' | '<' | '>') => {
                    return Ok(steps);
                }
                Some(c) => {
                    return Err(format!(
                        "unrecognized character in action: U+{:04X} '{c}'",
                        u32::from(c)
                    ));
                }
                None => return Ok(steps),
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    name.extend(self.next());
                }
                c if c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '$') => {
                    self.at += 1;
                    name.push(c);
                }
                _ => break,
            }
        }
        (!name.is_empty()).then_some(name)
    }

    fn bracket(&mut self) -> Result<Step, String> {
        self.spaces();
        if self.eat("?(") {
            return self.filter();
        }
        let mut choices = Vec::new();
        loop {
            self.spaces();
            let step = match self.peek() {
                Some(quote @ ('\'' | '"')) => vec![Step::Field(self.quoted(quote)?)],
                Some('*') => {
                    self.at += 1;
                    vec![Step::Wildcard]
                }
                Some('0'..='9' | '-' | ':') => vec![self.range_of_indices()?],
                Some('.' | '@' | '$') => self.path()?,
                Some(_) => {
                    let mut inner = String::new();
                    while self.peek().is_some_and(|c| c != ']') {
                        inner.extend(self.next());
                    }
                    return Err(format!("invalid array index {inner}"));
                }
                None => return Err("unterminated array".into()),
            };
            choices.push(step);
            self.spaces();
            if self.eat("]") {
                break;
            }
            if !self.eat(",") {
                return Err("unterminated array".into());
            }
        }
        Ok(match choices.len() {
            1 => {
                let mut only = choices.remove(0);
                if only.len() == 1 {
                    only.remove(0)
                } else {
                    Step::Union(vec![only])
                }
            }
            _ => Step::Union(choices),
        })
    }

    fn range_of_indices(&mut self) -> Result<Step, String> {
        let first = self.index()?;
        if !self.eat(":") {
            return first.map(Step::Index).ok_or_else(|| "invalid array index".to_owned());
        }
        let second = self.index()?;
        let third = if self.eat(":") { self.index()? } else { None };
        Ok(Step::Slice(first, second, third.unwrap_or(1)))
    }

    fn index(&mut self) -> Result<Option<i64>, String> {
        let mut text = String::new();
        while self.peek().is_some_and(|c| c == '-' || c.is_ascii_digit()) {
            text.extend(self.next());
        }
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| format!("invalid array index {text}"))
    }

    fn filter(&mut self) -> Result<Step, String> {
        let left = self.operand()?;
        self.spaces();
        let compare = [
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            ("<=", Compare::LessEqual),
            (">=", Compare::GreaterEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
        ]
        .into_iter()
        .find(|(text, _)| self.eat(text));
        let test = match compare {
            Some((_, compare)) => Some((compare, self.operand()?)),
            None => None,
        };
        self.spaces();
        if self.eat(")") && self.eat("]") {
            Ok(Step::Filter(left, test))
        } else {
            Err("unterminated filter".into())
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.spaces();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => Ok(Operand::Literal(self.quoted(quote)?.into())),
            Some('0'..='9' | '-') => Ok(Operand::Literal(self.number()?)),
            Some('t') if self.word("true") => Ok(Operand::Literal(true.into())),
            Some('f') if self.word("false") => Ok(Operand::Literal(false.into())),
            Some(_) => Ok(Operand::Path(self.path()?)),
            None => Err("unterminated filter".into()),
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let mut text = String::new();
        while self
            .peek()
            .is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | 'e' | 'E' | '+'))
        {
            text.extend(self.next());
        }
        if let Ok(integer) = text.parse::<i64>() {
            return Ok(integer.into());
        }
        text.parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("cannot parse number {text}"))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\\') => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(other) => text.push(other),
                    None => return Err("unterminated quoted string".into()),
                },
                Some(c) if c == quote => return Ok(text),
                Some(c) => text.push(c),
                None => return Err("unterminated quoted string".into()),
            }
        }
    }
}
