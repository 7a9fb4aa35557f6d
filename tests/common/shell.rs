//! The commands of the node that stand in a text of shell, and whether its command line takes them.
#![allow(dead_code, reason = "each test binary uses a part")]

use clap::Parser;
use clap::error::ErrorKind;
use pairdb_node::cli::Cli;

/// Words after which a command begins.
const LEADING: [&str; 13] = [
    "if", "then", "else", "while", "until", "do", "!", "{", "sudo", "env", "exec", "time", "--",
];

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    /// What ends a command: a pipe, a list, a bracket, the end of a line.
    End,
    /// What follows is the name of a file.
    Redirect,
}

fn tokens(text: &str) -> Vec<Token> {
    let joined = text.replace("\\\n", " ");
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut comment = false;
    for c in joined.chars() {
        if comment && c != '\n' {
            continue;
        }
        comment = false;
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            None if c == '#' && word.is_none() => comment = true,
            None if "|;&()\n<> \t".contains(c) => {
                let is_redirect = "<>".contains(c);
                // The number of a descriptor is no word.
                let number = |word: &String| is_redirect && word.chars().all(|c| c.is_ascii_digit());
                tokens.extend(word.take().filter(|word| !number(word)).map(Token::Word));
                match c {
                    '<' | '>' => tokens.push(Token::Redirect),
                    // As in 2>&1.
                    '&' if tokens.last() == Some(&Token::Redirect) => {}
                    ' ' | '\t' => {}
                    _ => tokens.push(Token::End),
                }
            }
            None => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    })
}

/// The commands of the node in a text of shell: the arguments of each.
pub fn commands_of_the_node(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut begins = true;
    let mut of_node: Option<Vec<String>> = None;
    let mut to_file = false;
    // A machine, or a user.
    let mut is_named = false;
    for token in tokens(text) {
        match token {
            Token::End => {
                commands.extend(of_node.take());
                (begins, to_file) = (true, false);
            }
            Token::Redirect => to_file = true,
            Token::Word(_) if to_file => to_file = false,
            Token::Word(word) => match &mut of_node {
                Some(arguments) => arguments.push(word),
                None if begins && (word == "pairdb-node" || word.ends_with("/pairdb-node")) => {
                    of_node = Some(Vec::new())
                }
                None => {
                    // What another machine, or user, is to run follows its name.
                    let names = word == "ssh" || begins && word == "-u";
                    begins = is_named || names || LEADING.contains(&word.as_str()) || begins && is_assignment(&word);
                    is_named = names;
                }
            },
        }
    }
    commands.extend(of_node);
    commands
}

/// Fails unless the command line takes these arguments.
pub fn assert_taken(arguments: &[String], whence: &str) {
    let all = std::iter::once("pairdb-node").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(all) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {}
        Err(error) => panic!("{whence}: pairdb-node {}: {error}", arguments.join(" ")),
    }
}
