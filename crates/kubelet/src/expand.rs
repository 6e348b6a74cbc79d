//! `$(NAME)` in commands, arguments and values of the environment.

/// Puts values in: `$(NAME)` is replaced where the name is known and stays where it is not; `$$` is a dollar.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    expand_noting(text, env, |_| {})
}

/// The same, where every name must be known.
pub fn expand_known(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let mut missing = None;
    let expanded = expand_noting(text, env, |name| {
        missing.get_or_insert_with(|| format!("missing value for {name:?}"));
    });
    missing.map_or(Ok(expanded), Err)
}

fn expand_noting(text: &str, env: &[(String, String)], mut unknown: impl FnMut(&str)) -> String {
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
                            unknown(name);
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
        assert_eq!(expand_known("$$(NONE) $(A)", &env), Ok("$(NONE) 3".into()));
        assert_eq!(
            expand_known("$(A)/$(NONE)", &env),
            Err("missing value for \"NONE\"".into())
        );
    }
}
