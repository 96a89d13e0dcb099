//! What commands print: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::exit::Failure;

/// Writes a line to standard output. A reader that went away (`| head`) is no failure.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a JSON document, indented.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(format_args!("{value:#}"))
}

/// Writes rows under a header; says so if there are none.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, none: &str) -> Result<(), Failure> {
    if rows.is_empty() {
        return line(none);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    line(table.trim_fmt())
}

/// A line on standard error that replaces itself while something is waited for; only on a terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    terminal: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { shown: false, terminal: std::io::stderr().is_terminal() }
    }

    pub fn show(&mut self, text: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{text}");
            self.shown = true;
        }
    }

    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
