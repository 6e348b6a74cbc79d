//! `$(NAME)` in commands, arguments and values of the environment.

/// Puts values in: `$(NAME)` is replaced where the name is known and stays where it is not; `$$` is a dollar.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    // The last one of a name counts, as for the process.
    let lookup = |name: &str| {
        env.iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.as_bytes().first() {
            Some(b'$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some(b'(') => match rest.find(')') {
                Some(end) => {
                    let name = &rest[1..end];
                    match lookup(name) {
                        Some(value) => out.push_str(value),
                        None => {
                            out.push('$');
                            out.push_str(&rest[..=end]);
                        }
                    }
                    rest = &rest[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = &rest[1..];
                }
            },
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let env = [("A", "1"), ("B", "two"), ("A", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        for (text, expanded) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A) and $(B)", "3 and two"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$3"),
            ("$(NONE)", "$(NONE)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$(A$(B)", "$(A$(B)"),
            ("ä$(B)ö", "ätwoö"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
