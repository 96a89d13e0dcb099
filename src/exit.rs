//! How a command ends: one line for a person, one number for a program.

use std::process::ExitCode;

/// The exit codes, after `sysexits.h` where it has a word for it.
pub mod code {
    /// The job that was waited for did not succeed.
    pub const JOB_NOT_SUCCEEDED: u8 = 1;
    /// The configuration cannot be used (`EX_USAGE`).
    pub const CONFIG: u8 = 64;
    /// What was given is not valid: arguments, a refused request (`EX_DATAERR`).
    pub const INVALID: u8 = 65;
    /// There is no such job, model or key (`EX_NOINPUT`).
    pub const NOT_FOUND: u8 = 66;
    /// Store, broker or server cannot be reached (`EX_UNAVAILABLE`).
    pub const UNAVAILABLE: u8 = 69;
    /// A defect of inferq (`EX_SOFTWARE`).
    pub const INTERNAL: u8 = 70;
    /// The system refused a file or a port (`EX_OSERR`).
    pub const SYSTEM: u8 = 71;
    /// The key is missing or refused (`EX_NOPERM`).
    pub const NO_PERMISSION: u8 = 77;
}

/// Shown by `--help`.
pub const HELP: &str = "\
Exit codes:
  0   done
  1   the job that was waited for did not succeed
  2   the command line is wrong
  64  the configuration cannot be used
  65  the request was refused as invalid
  66  there is no such job, model or key
  69  the store, the broker or the server cannot be reached
  70  a defect of inferq
  71  the system refused a file or a port
  77  the API key is missing or refused";

/// Why a command failed: says what to do, and with which code to end.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Prints the message to standard error.
    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("inferq: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<inferq_common::config::ConfigError> for Failure {
    fn from(error: inferq_common::config::ConfigError) -> Self {
        Self::new(code::CONFIG, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(code::SYSTEM, error.to_string())
    }
}
