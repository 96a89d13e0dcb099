//! Settings from files and the environment. A process of its own: each test changes the variables
//! and the folder of the whole process, one after the other.

#![expect(clippy::unwrap_used, reason = "tests unwrap freely")]

use figment::Jail;
use inferq_common::{
    config::{Config, LogFormat},
    vendor::Vendor,
};
use secrecy::ExposeSecret as _;

/// Runs `test` in an empty folder and an empty environment.
#[track_caller]
#[expect(clippy::result_large_err, reason = "the jail asks for its own error")]
fn in_a_jail(test: impl FnOnce(&mut Jail)) {
    Jail::expect_with(|jail| {
        jail.clear_env();
        test(jail);
        Ok(())
    });
}

fn load() -> Config {
    Config::load(None).unwrap()
}

#[track_caller]
fn complaint() -> String {
    let message = Config::load(None).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn the_environment_stands_above_the_file_and_the_file_above_the_defaults() {
    in_a_jail(|jail| {
        let file = "[worker]\nconcurrency = 7\n[callbacks]\nper_host = 3\n";
        jail.create_file("inferq.toml", file).unwrap();
        jail.set_env("INFERQ__WORKER__CONCURRENCY", "9");
        let config = Config::load(Some("inferq.toml".as_ref())).unwrap();
        assert_eq!(config.worker.concurrency, 9);
        assert_eq!(config.callbacks.per_host, 3);
        assert_eq!(config.callbacks.concurrency, 64);
    });
}

#[test]
fn conventional_variables_stand_above_the_file_and_below_our_own() {
    in_a_jail(|jail| {
        jail.create_file("inferq.toml", "[database]\nurl = \"sqlite://file.db\"\n").unwrap();
        let load = || Config::load(Some("inferq.toml".as_ref())).unwrap();
        jail.set_env("DATABASE_URL", "postgres://conventional/db");
        jail.set_env("AMQP_URL", "amqp://conventional");
        jail.set_env("OPENAI_API_KEY", "sk-conventional");
        jail.set_env("OPENAI_BASE_URL", "http://conventional/v1");
        let config = load();
        assert_eq!(config.database.url.expose_secret(), "postgres://conventional/db");
        assert_eq!(config.broker.url.expose_secret(), "amqp://conventional");
        let openai = config.vendor(Vendor::OpenAi);
        assert_eq!(openai.api_key.unwrap().expose_secret(), "sk-conventional");
        assert_eq!(openai.base_url.unwrap().as_str(), "http://conventional/v1");
        jail.set_env("INFERQ__DATABASE__URL", "postgres://ours/db");
        jail.set_env("INFERQ__BROKER__URL", "memory:");
        jail.set_env("INFERQ__VENDORS__OPENAI__API_KEY", "sk-ours");
        let config = load();
        assert_eq!(config.database.url.expose_secret(), "postgres://ours/db");
        assert!(config.broker.is_in_process());
        assert_eq!(config.vendor(Vendor::OpenAi).api_key.unwrap().expose_secret(), "sk-ours");
    });
}

#[test]
fn the_vendors_own_variables_are_settings_too() {
    let keys = [
        ("OPENAI_API_KEY", Vendor::OpenAi),
        ("ANTHROPIC_API_KEY", Vendor::Anthropic),
        ("CO_API_KEY", Vendor::Cohere),
        ("COHERE_API_KEY", Vendor::Cohere),
        ("GEMINI_API_KEY", Vendor::Gemini),
        ("GOOGLE_API_KEY", Vendor::Gemini),
        ("AZURE_OPENAI_API_KEY", Vendor::Azure),
        ("AWS_BEARER_TOKEN_BEDROCK", Vendor::Bedrock),
        ("XAI_API_KEY", Vendor::Xai),
        ("FIREWORKS_API_KEY", Vendor::FireworksAi),
        ("LAUNCH_API_KEY", Vendor::Launch),
        ("SCALE_API_KEY", Vendor::LlmEngine),
    ];
    let addresses = [
        ("OPENAI_BASE_URL", Vendor::OpenAi),
        ("ANTHROPIC_BASE_URL", Vendor::Anthropic),
        ("CO_API_URL", Vendor::Cohere),
        ("GOOGLE_GEMINI_BASE_URL", Vendor::Gemini),
        ("AZURE_OPENAI_ENDPOINT", Vendor::Azure),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", Vendor::Bedrock),
        ("FIREWORKS_BASE_URL", Vendor::FireworksAi),
        ("LLM_ENGINE_BASE_PATH", Vendor::LlmEngine),
    ];
    for (name, vendor) in keys {
        in_a_jail(|jail| {
            jail.set_env(name, "key-number-1");
            let key = load().vendor(vendor).api_key;
            assert_eq!(key.unwrap().expose_secret(), "key-number-1", "{name}");
        });
    }
    for (name, vendor) in addresses {
        in_a_jail(|jail| {
            jail.set_env(name, "http://own.example/");
            let address = load().vendor(vendor).base_url;
            assert_eq!(address.unwrap().as_str(), "http://own.example/", "{name}");
        });
    }
    // Google's own clients take this one where both are set.
    in_a_jail(|jail| {
        jail.set_env("GEMINI_API_KEY", "key-number-1");
        jail.set_env("GOOGLE_API_KEY", "key-number-2");
        let key = load().vendor(Vendor::Gemini).api_key;
        assert_eq!(key.unwrap().expose_secret(), "key-number-2");
    });
}

#[test]
fn every_vendor_can_be_set_from_the_environment() {
    in_a_jail(|jail| {
        for vendor in Vendor::ALL {
            let name = vendor.as_str().to_uppercase();
            let url = format!("http://{name}.example/v1");
            jail.set_env(format!("INFERQ__VENDORS__{name}__BASE_URL"), url);
            jail.set_env(format!("INFERQ__VENDORS__{name}__API_KEY"), format!("key-{vendor}"));
            jail.set_env(format!("INFERQ__VENDORS__{name}__CONNECT_TIMEOUT_MS"), "77");
        }
        let config = load();
        for &vendor in Vendor::ALL {
            let settings = config.vendor(vendor);
            assert!(settings.base_url.unwrap().as_str().ends_with(".example/v1"), "{vendor}");
            assert_eq!(settings.api_key.unwrap().expose_secret(), format!("key-{vendor}"));
            assert_eq!(settings.connect_timeout_ms, 77);
            assert_eq!(settings.idle_timeout_ms, 300_000);
        }
    });
}

#[test]
fn a_secret_is_kept_as_it_is_written_whatever_it_looks_like() {
    in_a_jail(|jail| {
        for key in [
            "123456",
            "000123",
            "1e9",
            "0x10",
            "-5",
            "true",
            "null",
            "a,b",
            "[1,2]",
            "{a=1}",
            "\"quoted\"",
            "'single'",
            "a=b#c",
            "18446744073709551616",
        ] {
            jail.set_env("INFERQ__VENDORS__OPENAI__API_KEY", key);
            let found = load().vendor(Vendor::OpenAi).api_key.unwrap();
            assert_eq!(found.expose_secret(), key);
        }
        jail.set_env("INFERQ__AUTH__BOOTSTRAP_KEY", "1234567890123456");
        assert_eq!(load().auth.bootstrap_key.unwrap().expose_secret(), "1234567890123456");
        jail.set_env("INFERQ__AUTH__DEFAULT_ACCOUNT", "42");
        assert_eq!(load().auth.default_account.to_string(), "42");
        // A secret read from a file often ends with its line.
        jail.set_env("INFERQ__VENDORS__OPENAI__API_KEY", "sk-1\n");
        assert_eq!(load().vendor(Vendor::OpenAi).api_key.unwrap().expose_secret(), "sk-1");
    });
}

#[test]
fn lists_come_with_commas_or_as_toml() {
    in_a_jail(|jail| {
        for text in [
            "10.1.0.0/16,127.0.0.0/8",
            " 10.1.0.0/16 , 127.0.0.0/8, ",
            "[\"10.1.0.0/16\", \"127.0.0.0/8\"]",
        ] {
            jail.set_env("INFERQ__CALLBACKS__ALLOW_NETWORKS", text);
            let networks = load().callbacks.allow_networks;
            let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
            assert_eq!(networks, ["10.1.0.0/16", "127.0.0.0/8"], "{text}");
        }
        jail.set_env("INFERQ__WORKER__VENDORS", "openai,model_zoo");
        assert_eq!(load().worker.vendors, [Vendor::OpenAi, Vendor::ModelZoo]);
        jail.set_env("INFERQ__WORKER__VENDORS", "openai,acme");
        assert!(
            complaint().starts_with("configuration: worker.vendors: 'acme' cannot be used: "),
            "{}",
            complaint()
        );
    });
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    in_a_jail(|jail| {
        for name in [
            "DATABASE_URL",
            "OPENAI_API_KEY",
            "INFERQ__API__PUBLIC_URL",
            "INFERQ__AUTH__BOOTSTRAP_KEY",
            "INFERQ__WORKER__CONCURRENCY",
            "INFERQ__CALLBACKS__ALLOW_NETWORKS",
        ] {
            jail.set_env(name, " ");
        }
        assert_eq!(load().redacted(), {
            jail.clear_env();
            load().redacted()
        });
    });
}

#[test]
fn a_misspelt_variable_is_named() {
    in_a_jail(|jail| {
        jail.set_env("INFERQ__WORKER__CONCURENCY", "5");
        let message = complaint();
        assert!(
            message.starts_with("configuration: worker.concurency: no such setting; there are "),
            "{message}"
        );
        assert!(
            message.ends_with("(in environment variable INFERQ__WORKER__CONCURENCY)"),
            "{message}"
        );
    });
    for (name, key) in [
        ("INFERQ__WROKER__CONCURRENCY", "wroker"),
        ("INFERQ__CONCURRENCY", "concurrency"),
        ("INFERQ__VENDORS__OPENIA__API_KEY", "vendors"),
        ("INFERQ__WORKER___CONCURRENCY", "worker._concurrency"),
        ("INFERQ__VENDORS__OPENAI__APIKEY", "vendors.openai.apikey"),
    ] {
        in_a_jail(|jail| {
            jail.set_env(name, "sk-secret");
            let message = complaint();
            assert!(message.starts_with(&format!("configuration: {key}")), "{message}");
            assert!(message.contains(name), "{message}");
            assert!(!message.contains("sk-secret"), "{message}");
        });
    }
}

#[test]
fn a_wrong_value_names_the_variable_and_keeps_the_value_to_itself() {
    for (name, value, expected) in [
        (
            "INFERQ__WORKER__CONCURRENCY",
            "many",
            "worker.concurrency: must be a whole number, not text",
        ),
        ("INFERQ__WORKER__CONCURRENCY", "-1", "worker.concurrency: must be a whole number, not -1"),
        ("INFERQ__WORKER", "sk-secret", "worker: must be a section, not text"),
        ("INFERQ__LOG__FORMAT", "xml", "log.format: must be one of human, json"),
        ("INFERQ__API__LISTEN", "8080", "api.listen: invalid socket address syntax"),
        ("INFERQ__API__PUBLIC_URL", "me:sk-secret", "api.public_url: must start with http"),
        ("DATABASE_URL", "mysql://me:sk-secret@db", "database.url: must start with sqlite"),
    ] {
        in_a_jail(|jail| {
            jail.set_env(name, value);
            let message = complaint();
            assert!(message.starts_with(&format!("configuration: {expected}")), "{message}");
            assert!(!message.contains("sk-secret"), "{message}");
        });
    }
}

#[test]
fn numbers_and_words_come_from_text() {
    in_a_jail(|jail| {
        jail.set_env("INFERQ__LOG__FORMAT", "json");
        jail.set_env("INFERQ__DATABASE__MAX_GROUP", "17");
        jail.set_env("INFERQ__WORKER__LISTEN", "0.0.0.0:8081");
        jail.set_env("inferq__callbacks__timeout_ms", "1500");
        let config = load();
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.database.max_group, 17);
        assert_eq!(config.worker.listen.unwrap().port(), 8081);
        assert_eq!(config.callbacks.timeout_ms, 1500);
    });
}

#[test]
fn a_setting_with_single_underscores_is_named_and_not_passed_over() {
    for (name, right) in [
        ("INFERQ_DATABASE_URL", "INFERQ__DATABASE__URL"),
        ("INFERQ_API_MAX_BODY_BYTES", "INFERQ__API__MAX_BODY_BYTES"),
        ("INFERQ_API__LISTEN", "INFERQ__API__LISTEN"),
        ("INFERQ_VENDORS_MODEL_ZOO_BASE_URL", "INFERQ__VENDORS__MODEL_ZOO__BASE_URL"),
    ] {
        in_a_jail(|jail| {
            jail.set_env(name, "sk-secret");
            assert_eq!(complaint(), format!("configuration: {name} is no setting: write {right}"));
        });
    }
}

#[test]
fn variables_that_are_not_settings_are_left_alone() {
    in_a_jail(|jail| {
        for name in [
            "INFERQ_TEST_POSTGRES_URL",
            "INFERQ_LOG",
            "INFERQ",
            "INFERQ_WORKER",
            "INFERQ_API_KEY",
            "INFERQ_API_PORT",
            "PATH",
        ] {
            jail.set_env(name, "x");
        }
        load();
    });
}

#[test]
fn a_file_that_is_missing_or_broken_is_one_line() {
    in_a_jail(|jail| {
        let complaint = |path: &str| {
            let message = Config::load(Some(path.as_ref())).unwrap_err().to_string();
            assert_eq!(message.lines().count(), 1, "{message}");
            message
        };
        assert!(
            complaint("missing.toml").contains("missing.toml"),
            "{}",
            complaint("missing.toml")
        );
        jail.create_file("broken.toml", "[worker]\nconcurrency = \n").unwrap();
        let message = complaint("broken.toml");
        assert!(message.contains("broken.toml") && message.contains("line 2"), "{message}");
        jail.create_file("misspelt.toml", "[worker]\nconcurency = 5\n").unwrap();
        let message = complaint("misspelt.toml");
        assert!(message.contains("worker.concurency: no such setting"), "{message}");
        assert!(message.contains("misspelt.toml"), "{message}");
    });
}
