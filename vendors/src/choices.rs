//! Which of several answers in one stream have come to their end.

use inferq_common::members::each_member;
use serde_json::value::RawValue;

/// More answers than this to one request are not told apart; vendors make at most 128.
const MAX_CHOICES: usize = 128;

/// The choices (candidates) of one stream.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    begun: Vec<u64>,
    ended: Vec<u64>,
}

impl Choices {
    /// Takes the choices of one chunk, a JSON array. One has ended once its member `reason` says a
    /// word that `is_reason` takes for one. Without an `index` it is the first.
    pub(crate) fn take(&mut self, choices: &str, reason: &str, is_reason: impl Fn(&str) -> bool) {
        let choices: Vec<&RawValue> = serde_json::from_str(choices).unwrap_or_default();
        for choice in choices {
            let (mut index, mut has_ended) = (0, false);
            let read = each_member(choice.get(), |member| {
                if member.key == "index" {
                    index = member.value.parse().unwrap_or_default();
                } else if member.key == reason {
                    has_ended |= is_reason(member.value);
                }
            });
            if read.is_err() {
                continue;
            }
            add(&mut self.begun, index);
            if has_ended {
                add(&mut self.ended, index);
            }
        }
    }

    /// Whether every one that has begun has ended, and there is one.
    pub(crate) fn have_ended(&self) -> bool {
        !self.ended.is_empty() && self.ended.len() == self.begun.len()
    }
}

fn add(indices: &mut Vec<u64>, index: u64) {
    if indices.len() < MAX_CHOICES && !indices.contains(&index) {
        indices.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(chunks: &[&str]) -> bool {
        let mut choices = Choices::default();
        for chunk in chunks {
            choices.take(chunk, "finish_reason", |word| word != "null");
        }
        choices.have_ended()
    }

    #[test]
    fn an_answer_of_several_choices_is_complete_with_the_last_of_them() {
        let word = r#"[{"index":0},{"index":1,"finish_reason":null}]"#;
        let (first, second) =
            (r#"[{"finish_reason":"stop"}]"#, r#"[{"index":1,"finish_reason":"length"}]"#);
        assert!(!after(&[]));
        assert!(!after(&["[]"]));
        assert!(!after(&[word]));
        assert!(!after(&[word, first]), "the second goes on");
        assert!(after(&[word, first, second]));
        assert!(after(&[word, second, first, r#"[{"index":0}]"#]), "notes may follow an end");
        assert!(after(&[first]));
    }

    #[test]
    fn no_number_of_choices_takes_more_memory() {
        let mut choices = Choices::default();
        for index in 0..10_000 {
            choices.take(&format!(r#"[{{"index":{index}}}]"#), "finish_reason", |_| true);
        }
        assert_eq!((choices.begun.len(), choices.ended.len()), (MAX_CHOICES, 0));
        choices.take("{not an array", "finish_reason", |_| true);
        choices.take(r#"[1,{"index":"x","finish_reason":1}]"#, "finish_reason", |_| true);
        assert_eq!(choices.ended, [0]);
    }
}
