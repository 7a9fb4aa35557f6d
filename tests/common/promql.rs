//! Which metrics and labels an expression of Prometheus' language names. No parser: Prometheus itself says whether it is one.

use std::collections::BTreeSet;

/// A label that must have a value, or one of several, as far as that can be told without looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    pub operator: String,
    pub value: String,
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Metrics of the node, each with what is asked of its labels.
    pub metrics: Vec<(String, Vec<Matcher>)>,
    /// Labels by which results are grouped or joined.
    pub groups: BTreeSet<String>,
}

struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn take_while(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !of(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn identifier(&mut self) -> &'a str {
        self.skip_spaces();
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    fn take(&mut self, what: char) -> bool {
        self.skip_spaces();
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// What stands between quotes, behind the first of them.
    fn quoted(&mut self) -> String {
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return value;
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        panic!("a quote is not closed: {}", self.0);
    }

    fn matchers(&mut self) -> Vec<Matcher> {
        let mut matchers = Vec::new();
        while !self.take('}') {
            let label = self.identifier().to_owned();
            self.skip_spaces();
            let operator = self.take_while(|c| "=!~".contains(c)).to_owned();
            assert!(
                !label.is_empty() && self.take('"'),
                "no matcher of a label: {label}{operator}{}",
                self.0
            );
            let value = self.quoted();
            matchers.push(Matcher { label, operator, value });
            self.take(',');
        }
        matchers
    }
}

/// What `expression` names.
pub fn named(expression: &str) -> Named {
    let (mut text, mut named) = (Text(expression), Named::default());
    while !text.0.is_empty() {
        if text.take('"') {
            text.quoted();
            continue;
        }
        let word = text.identifier();
        if word.starts_with("pairdb_") {
            let matchers = if text.take('{') { text.matchers() } else { Vec::new() };
            named.metrics.push((word.to_owned(), matchers));
        } else if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&word) && text.take('(') {
            while !text.take(')') {
                let label = text.identifier();
                assert!(!label.is_empty(), "no label: {}", text.0);
                named.groups.insert(label.to_owned());
                text.take(',');
            }
        } else if word.is_empty() {
            let mut chars = text.0.chars();
            chars.next();
            text.0 = chars.as_str();
        }
    }
    named
}

#[test]
fn what_an_expression_names_is_found() {
    let found =
        named(r#"sum by (node_id, le) (rate(pairdb_a_bucket{x=~"1|2",y!="}\""}[5m])) / ignoring(z) pairdb_b > 2"#);
    let matcher = |label: &str, operator: &str, value: &str| Matcher {
        label: label.into(),
        operator: operator.into(),
        value: value.into(),
    };
    let of_a = vec![matcher("x", "=~", "1|2"), matcher("y", "!=", "}\"")];
    assert_eq!(
        found.metrics,
        [("pairdb_a_bucket".into(), of_a), ("pairdb_b".into(), vec![])]
    );
    assert_eq!(found.groups, ["le", "node_id", "z"].map(String::from).into());
    assert_eq!(named("up{job=\"pairdb_c\"} == 0"), Named::default());
}
