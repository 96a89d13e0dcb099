use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{ConfigError, LogConfig, LogFormat};

/// Sends log lines to standard error from here on.
///
/// A second call changes nothing: one process has one log.
///
/// # Errors
/// `Refused`, naming `log.filter`.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let subscriber = tracing_subscriber::registry().with(lines(config.format, io::stderr));
    // Someone else, such as a test, may have set a log before; theirs stays.
    let _ = subscriber.with(filter(&config.filter)?).try_init();
    Ok(())
}

/// One line for each event, written to what `writer` makes.
fn lines<W>(format: LogFormat, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Human => {
            let layer = fmt::layer().compact().with_writer(writer);
            // On a terminal the default stands: colours, unless NO_COLOR is set.
            if io::stderr().is_terminal() { layer.boxed() } else { layer.with_ansi(false).boxed() }
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_writer(writer);
            // The list holds the current span as well.
            layer.with_current_span(false).with_span_list(true).boxed()
        }
    }
}

/// It calls every end of a connection an error, our own closing included; what matters of it is
/// told by `broker`. A directive that names it turns it on.
const CLIENT_OF_RABBITMQ: &str = "lapin";

/// Reads the directives of `log.filter`, such as `info,inferq_worker=debug`.
///
/// # Errors
/// `Refused`, naming the directive. `tracing` takes any bare word for a module's name, so that a
/// misspelt level would silence everything else; here a bare word must be a level.
pub fn filter(directives: &str) -> Result<EnvFilter, ConfigError> {
    let refused = |reason: String| ConfigError::refused("log.filter", reason);
    let levels = "error, warn, info, debug, trace or off";
    let mut directives: Vec<&str> =
        directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if directives.is_empty() {
        return Err(refused(format!("must be {levels}, or directives such as info,sqlx=warn")));
    }
    for directive in &directives {
        let is_word = directive.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_word && directive.parse::<LevelFilter>().is_err() {
            return Err(refused(format!(
                "'{directive}' is no level ({levels}); for one module write module=level"
            )));
        }
    }
    let silent = format!("{CLIENT_OF_RABBITMQ}=off");
    if !directives.iter().any(|directive| directive.starts_with(CLIENT_OF_RABBITMQ)) {
        directives.push(&silent);
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_client_of_rabbitmq_is_silent_unless_named() {
        assert!(filter("info").unwrap().to_string().contains("lapin=off"));
        let named = filter("info,lapin=debug").unwrap().to_string();
        assert!(named.contains("lapin=debug") && !named.contains("off"), "{named}");
    }

    #[test]
    fn a_wrong_filter_is_one_line_that_names_the_key() {
        let message = |directives: &str| filter(directives).unwrap_err().to_string();
        assert_eq!(
            message("info,warning"),
            "configuration: log.filter: 'warning' is no level (error, warn, info, debug, trace or \
             off); for one module write module=level"
        );
        assert_eq!(
            message("inferq_worker=loud"),
            "configuration: log.filter: error parsing level filter: expected one of \"off\", \
             \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5"
        );
        assert!(message(" ").starts_with("configuration: log.filter: must be error, warn,"));
        for good in
            ["info", "info,", "WARN", "off", "info,inferq_worker=debug", "warn, sqlx::query=trace"]
        {
            filter(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_line(format: LogFormat, directives: &str) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = lines(format, move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber.with(filter(directives).unwrap()), || {
            let _outer = tracing::info_span!("http.request", request.id = "r1").entered();
            let _inner =
                tracing::info_span!("job.attempt", { crate::telemetry::field::JOB_ID } = "j1")
                    .entered();
            tracing::info!(delay_ms = 5, "attempt will be retried");
            tracing::debug!("not asked for");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_event_and_its_spans() {
        let line = log_line(LogFormat::Json, "info");
        let mut json: serde_json::Value = serde_json::from_str(&line).unwrap();
        json.as_object_mut().unwrap().remove("timestamp").unwrap();
        let expected = serde_json::json!({
            "level": "INFO",
            "message": "attempt will be retried",
            "delay_ms": 5,
            "target": "inferq_common::telemetry::log::tests",
            "spans": [
                { "name": "http.request", "request.id": "r1" },
                { "name": "job.attempt", "job.id": "j1" },
            ],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_line_for_people_is_one_line_with_everything_in_it() {
        let line = log_line(LogFormat::Human, "inferq_common=info");
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in ["INFO", "attempt will be retried", "delay_ms", "job.id", "r1"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(log_line(LogFormat::Human, "warn"), "");
    }
}
