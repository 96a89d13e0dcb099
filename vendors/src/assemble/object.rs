//! JSON objects that grow, with values kept as they are spelt.

use std::collections::{BTreeMap, HashMap};

use inferq_common::members::{Member, each_member};
use serde_json::value::RawValue;

use crate::json;

/// An input of a tool may be half as deep as an answer, in which it stands.
const MAX_INPUT_DEPTH: usize = json::MAX_DEPTH / 2;

/// What was read is not of the shape that is assembled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strange;

/// The members of an object, in the order of its text.
pub(super) fn members(object: &str) -> Result<Vec<Member<'_>>, Strange> {
    let mut members = Vec::new();
    each_member(object, |member| members.push(member)).map_err(|_| Strange)?;
    Ok(members)
}

/// The elements of a list.
pub(super) fn elements(list: &str) -> Result<Vec<&str>, Strange> {
    let elements: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| Strange)?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

/// The value of a member that is there and not `null`.
pub(super) fn find<'a>(members: &[Member<'a>], key: &str) -> Option<&'a str> {
    let member = members.iter().rfind(|member| member.key == key)?;
    Some(member.value).filter(|value| *value != "null")
}

/// What stands between the quotes of a text, as it is spelt.
pub(super) fn inner(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// The number under `key` that says which of several parts this is; 0 where there is none.
pub(super) fn index(members: &[Member<'_>], key: &str) -> Result<u64, Strange> {
    find(members, key).map_or(Ok(0), |value| value.parse().map_err(|_| Strange))
}

/// Whether a value is nothing, or an empty text, list or object.
fn says_nothing(value: &str) -> bool {
    let between = |open, close| value.strip_prefix(open).and_then(|it| it.strip_suffix(close));
    value == "null"
        || value == r#""""#
        || between('{', '}').or_else(|| between('[', ']')).is_some_and(|it| it.trim().is_empty())
}

/// The JSON that a text says, which came in pieces: an object where nothing came. What is no JSON,
/// as where the model was cut off, stays as a text, in the form that Anthropic advises:
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming>.
pub(super) fn said_json(inner: &str) -> String {
    let quoted = format!("\"{inner}\"");
    let said = serde_json::from_str::<String>(&quoted).ok().filter(|text| {
        let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
        text.trim_ascii().is_empty() || (is_json && json::depth(text) <= MAX_INPUT_DEPTH)
    });
    match said {
        Some(text) if text.trim_ascii().is_empty() => "{}".to_owned(),
        Some(text) => text.trim_ascii().to_owned(),
        None => format!(r#"{{"INVALID_JSON":{quoted}}}"#),
    }
}

/// Objects by the number that their vendor gives them.
pub(super) type Slots = BTreeMap<u64, Object>;

/// Adds an object behind all others.
pub(super) fn push(slots: &mut Slots, object: Object) {
    let next = slots.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
    slots.insert(next, object);
}

/// A JSON object that is put together.
#[derive(Debug, Default)]
pub(super) struct Object {
    places: HashMap<String, usize>,
    /// The names as they are spelt, quotes included.
    members: Vec<(String, Node)>,
}

#[derive(Debug)]
enum Node {
    /// A value as it is spelt.
    Value(String),
    /// What stands between the quotes of a text, as it is spelt.
    Text(String),
    /// The elements of a list, each as it is spelt.
    List(Vec<String>),
    Object(Object),
    /// A list of objects.
    Slots(Slots),
    /// Taken out again.
    Gone,
}

impl Object {
    /// The object that a text spells.
    pub(super) fn of(text: &str) -> Result<Self, Strange> {
        let mut object = Self::default();
        for member in members(text)? {
            object.set(&member);
        }
        Ok(object)
    }

    /// Takes a value over; one that says nothing does not take the place of one that does.
    pub(super) fn set(&mut self, member: &Member<'_>) {
        let is_new = !self.places.contains_key(member.key.as_ref());
        let node = self.node(&member.key, member.raw_key);
        if is_new || !says_nothing(member.value) {
            match node {
                // Most values are those of the chunk before.
                Node::Value(value) if value == member.value => {}
                node => *node = Node::Value(member.value.to_owned()),
            }
        }
    }

    /// Puts a value in the place of any other; `key` needs no escapes.
    pub(super) fn put(&mut self, key: &str, value: impl Into<String>) {
        *self.plain(key) = Node::Value(value.into());
    }

    /// Puts a value where there is none yet; `key` needs no escapes.
    pub(super) fn put_default(&mut self, key: &str, value: &str) {
        if !self.has(key) {
            self.put(key, value);
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Takes a value out, as it would be written.
    pub(super) fn take_out(&mut self, key: &str) -> Option<String> {
        let mut out = String::new();
        self.get(key)?.write(&mut out);
        *self.plain(key) = Node::Gone;
        Some(out)
    }

    /// Adds a piece of a text to what is there of it.
    pub(super) fn text(&mut self, member: &Member<'_>) -> Result<(), Strange> {
        if member.is_null() {
            self.set(member);
            return Ok(());
        }
        let piece = inner(member.value).ok_or(Strange)?;
        self.add_text(&member.key, member.raw_key, piece)
    }

    fn add_text(&mut self, key: &str, raw_key: &str, piece: &str) -> Result<(), Strange> {
        match self.node(key, raw_key) {
            Node::Text(text) => text.push_str(piece),
            node => {
                let before = match node {
                    Node::Value(value) if says_nothing(value) => "",
                    Node::Value(value) => inner(value).ok_or(Strange)?,
                    Node::Gone => "",
                    Node::Text(_) | Node::List(_) | Node::Object(_) | Node::Slots(_) => {
                        return Err(Strange);
                    }
                };
                *node = Node::Text(format!("{before}{piece}"));
            }
        }
        Ok(())
    }

    /// Adds the elements of a list to those that are there.
    pub(super) fn extend(&mut self, member: &Member<'_>) -> Result<(), Strange> {
        if member.is_null() {
            self.set(member);
            return Ok(());
        }
        let new = elements(member.value)?;
        let node = self.node(&member.key, member.raw_key);
        let list = list(node)?;
        list.extend(new.into_iter().map(str::to_owned));
        Ok(())
    }

    /// Adds one element to a list; `key` needs no escapes.
    pub(super) fn add(&mut self, key: &str, element: &str) -> Result<(), Strange> {
        list(self.plain(key))?.push(element.to_owned());
        Ok(())
    }

    /// Takes over an object whose lists continue those that are there.
    pub(super) fn continue_lists(&mut self, member: &Member<'_>) -> Result<(), Strange> {
        if says_nothing(member.value) {
            self.set(member);
            return Ok(());
        }
        let own = self.object(&member.key)?;
        for member in members(member.value)? {
            if member.value.starts_with('[') {
                own.extend(&member)?;
            } else {
                own.set(&member);
            }
        }
        Ok(())
    }

    /// The object under a name, which needs no escapes; it is made where there is none.
    pub(super) fn object(&mut self, key: &str) -> Result<&mut Object, Strange> {
        let node = self.plain(key);
        let object = match node {
            Node::Object(_) => None,
            Node::Value(value) if says_nothing(value) => Some(Self::default()),
            Node::Value(value) => Some(Self::of(value)?),
            Node::Gone => Some(Self::default()),
            Node::Text(_) | Node::List(_) | Node::Slots(_) => return Err(Strange),
        };
        if let Some(object) = object {
            *node = Node::Object(object);
        }
        match node {
            Node::Object(object) => Ok(object),
            _ => Err(Strange),
        }
    }

    /// The list of objects under a name, which needs no escapes; it is made where there is none.
    pub(super) fn slots(&mut self, key: &str) -> Result<&mut Slots, Strange> {
        let node = self.plain(key);
        let slots = match node {
            Node::Slots(_) => None,
            Node::Gone => Some(Slots::new()),
            Node::Value(value) if says_nothing(value) => Some(Slots::new()),
            Node::Value(value) => {
                let objects = elements(value)?.into_iter().map(Self::of);
                Some((0..).zip(objects).map(|(n, it)| Ok((n, it?))).collect::<Result<_, _>>()?)
            }
            Node::Text(_) | Node::List(_) | Node::Object(_) => return Err(Strange),
        };
        if let Some(slots) = slots {
            *node = Node::Slots(slots);
        }
        match node {
            Node::Slots(slots) => Ok(slots),
            _ => Err(Strange),
        }
    }

    /// The value under a name, as it is spelt, where it was not put together.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Node::Value(value) => Some(value),
            _ => None,
        }
    }

    /// Whether there is a text under a name, and whether it is empty.
    pub(super) fn is_empty_text(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Node::Text(text) => Some(text.is_empty()),
            Node::Value(value) => inner(value).map(str::is_empty),
            _ => None,
        }
    }

    /// Whether it has no member but these.
    pub(super) fn has_only(&self, keys: &[&str]) -> bool {
        let is_one = |(key, &place): (&String, &usize)| {
            keys.contains(&key.as_str()) || matches!(self.members[place].1, Node::Gone)
        };
        self.places.iter().all(is_one)
    }

    /// Its JSON.
    pub(super) fn write(&self, out: &mut String) {
        out.push('{');
        let members = self.members.iter().filter(|(_, node)| !matches!(node, Node::Gone));
        for (n, (key, node)) in members.enumerate() {
            if n > 0 {
                out.push(',');
            }
            out.push_str(key);
            out.push(':');
            node.write(out);
        }
        out.push('}');
    }

    pub(super) fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn get(&self, key: &str) -> Option<&Node> {
        let node = &self.members[*self.places.get(key)?].1;
        (!matches!(node, Node::Gone)).then_some(node)
    }

    fn plain(&mut self, key: &str) -> &mut Node {
        if let Some(&place) = self.places.get(key) {
            return &mut self.members[place].1;
        }
        let raw_key = serde_json::to_string(key).expect("a text is always valid JSON");
        self.node(key, &raw_key)
    }

    fn node(&mut self, key: &str, raw_key: &str) -> &mut Node {
        let next = self.members.len();
        let place = self.places.get(key).copied().unwrap_or(next);
        if place == next {
            self.places.insert(key.to_owned(), next);
            self.members.push((raw_key.to_owned(), Node::Value("null".to_owned())));
        }
        &mut self.members[place].1
    }
}

/// The list that a value is, or becomes.
fn list(node: &mut Node) -> Result<&mut Vec<String>, Strange> {
    let list = match node {
        Node::List(_) => None,
        Node::Gone => Some(Vec::new()),
        Node::Value(value) if says_nothing(value) => Some(Vec::new()),
        Node::Value(value) => Some(elements(value)?.into_iter().map(str::to_owned).collect()),
        Node::Text(_) | Node::Object(_) | Node::Slots(_) => return Err(Strange),
    };
    if let Some(list) = list {
        *node = Node::List(list);
    }
    match node {
        Node::List(list) => Ok(list),
        _ => Err(Strange),
    }
}

impl Node {
    fn write(&self, out: &mut String) {
        match self {
            Self::Value(value) => out.push_str(value),
            Self::Text(text) => {
                out.push('"');
                out.push_str(text);
                out.push('"');
            }
            Self::List(list) => write_list(out, list, |out, it| out.push_str(it)),
            Self::Object(object) => object.write(out),
            Self::Slots(slots) => write_list(out, slots.values(), |out, it| it.write(out)),
            Self::Gone => out.push_str("null"),
        }
    }
}

fn write_list<T>(
    out: &mut String,
    list: impl IntoIterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    out.push('[');
    for (n, element) in list.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        write(out, element);
    }
    out.push(']');
}
