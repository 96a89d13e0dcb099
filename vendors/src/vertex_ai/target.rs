//! Where a model of Vertex AI is called: host, place and name; pure.
//!
//! Source: <https://cloud.google.com/vertex-ai/docs/reference/rest>.

use inferq_common::{error::ErrorClass, route::vertex_ai::publisher};
use url::Url;

use crate::{
    error::{VendorError, invalid},
    gemini::path,
};

/// Used with an API key, and for what is everywhere.
pub(super) const GLOBAL_HOST: &str = "https://aiplatform.googleapis.com";

/// The project and location that calls are made in, as far as the settings name them.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub project: Option<String>,
    pub location: Option<String>,
    /// Calls have an API key and no project: Google calls it express mode.
    pub express: bool,
}

/// A model as Google names it: what follows the place in a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// `projects/P/locations/L`, where the name itself says it.
    place: Option<(&'a str, &'a str)>,
    pub name: Name<'a>,
}

/// The last parts of a model's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name<'a> {
    Published {
        publisher: &'a str,
        model: &'a str,
    },
    /// A model that was deployed to an endpoint.
    Endpoint(&'a str),
    /// A model of the project's own.
    Own(&'a str),
}

impl<'a> Target<'a> {
    /// Reads a model's name: `NAME` (of Google, or Claude's), `PUBLISHER/NAME`,
    /// `publishers/P/models/NAME`, the digits of an endpoint, `endpoints/ID`, `models/ID`, or any of
    /// the last three behind `projects/P/locations/L/`.
    ///
    /// # Errors
    /// `InvalidRequest`: it is none of these.
    pub(super) fn of(model: &'a str) -> Result<Self, VendorError> {
        let parts: Vec<&str> = model.split('/').collect();
        let (place, rest) = match parts.as_slice() {
            ["projects", project, "locations", location, rest @ ..] => {
                check_place(project, location)?;
                (Some((*project, *location)), rest)
            }
            rest => (None, rest),
        };
        let name = match *rest {
            ["publishers", publisher, "models", model] => Name::Published { publisher, model },
            ["endpoints", id] => Name::Endpoint(id),
            ["models", id] => Name::Own(id),
            [id] if place.is_none() && id.bytes().all(|byte| byte.is_ascii_digit()) => {
                Name::Endpoint(id)
            }
            [model] if place.is_none() => {
                Name::Published { publisher: publisher(model).unwrap_or("google"), model }
            }
            [publisher, model] if place.is_none() => Name::Published { publisher, model },
            _ => {
                return Err(invalid(format!(
                    "no model of Vertex AI is named like this: {model}; a name is NAME, \
                     PUBLISHER/NAME, publishers/PUBLISHER/models/NAME, the id of an endpoint, or \
                     projects/PROJECT/locations/LOCATION/ and one of the longer forms"
                )));
            }
        };
        Ok(Self { place, name })
    }

    /// Another model at the same place.
    pub(super) fn published(&self, publisher: &'a str, model: &'a str) -> Self {
        Self { place: self.place, name: Name::Published { publisher, model } }
    }

    /// The segments of the path that say where: `projects/P/locations/L`, or nothing in express
    /// mode.
    ///
    /// # Errors
    /// `Auth`: project or location is not configured.
    fn parent(&self, place: &Place) -> Result<Vec<String>, VendorError> {
        let (project, location) = match self.place {
            Some((project, location)) => (project, location),
            None if place.express => return Ok(Vec::new()),
            None => {
                let project = set(place.project.as_ref(), "project", "GOOGLE_CLOUD_PROJECT")?;
                (project, set(place.location.as_ref(), "location", "GOOGLE_CLOUD_LOCATION")?)
            }
        };
        Ok(["projects", project, "locations", location].map(str::to_owned).into())
    }

    /// The address of `method` of this model, below `base` or on Google's own host.
    ///
    /// # Errors
    /// `Auth`: project or location is not configured.
    pub(super) fn url(
        &self,
        base: Option<&Url>,
        version: &str,
        place: &Place,
        method: &str,
    ) -> Result<Url, VendorError> {
        let mut segments = self.parent(place)?;
        match self.name {
            Name::Published { publisher, model } => segments.extend(
                ["publishers", publisher, "models", &format!("{model}:{method}")].map(Into::into),
            ),
            Name::Endpoint(id) => {
                segments.extend(["endpoints".to_owned(), format!("{id}:{method}")]);
            }
            Name::Own(id) => segments.extend(["models".to_owned(), format!("{id}:{method}")]),
        }
        self.at(base, version, place, &segments)
    }

    /// The address of the OpenAI-compatible chat of this model, and the model's name in the body.
    ///
    /// # Errors
    /// `Auth`: project or location is not configured; `InvalidRequest`: there is none.
    pub(super) fn chat(
        &self,
        base: Option<&Url>,
        version: &str,
        place: &Place,
    ) -> Result<(Url, String), VendorError> {
        if place.express && self.place.is_none() {
            return Err(invalid(
                "vertex_ai: chat completions cannot be had with an API key; use 'contents', or \
                 configure project, location and a service account",
            ));
        }
        let (endpoint, model) = match self.name {
            Name::Published { publisher, model } => ("openapi", format!("{publisher}/{model}")),
            // The server of an endpoint has one model; Google's examples leave its name empty.
            Name::Endpoint(id) => (id, String::new()),
            Name::Own(_) => {
                return Err(invalid(
                    "vertex_ai: a model of your own has chat completions at its endpoint alone; \
                     name the endpoint",
                ));
            }
        };
        let mut segments = self.parent(place)?;
        segments.extend(["endpoints", endpoint, "chat", "completions"].map(str::to_owned));
        Ok((self.at(base, version, place, &segments)?, model))
    }

    fn at(
        &self,
        base: Option<&Url>,
        version: &str,
        place: &Place,
        segments: &[String],
    ) -> Result<Url, VendorError> {
        let own = match (base, self.place) {
            (Some(base), _) => base.clone(),
            (None, Some((_, location))) => host(location)?,
            (None, None) if place.express => host("global")?,
            (None, None) => host(place.location.as_deref().unwrap_or("global"))?,
        };
        Ok(path::url(&own, version, segments.iter().map(String::as_str)))
    }
}

fn set<'a>(value: Option<&'a String>, key: &str, variable: &str) -> Result<&'a str, VendorError> {
    value.map(String::as_str).ok_or_else(|| {
        let message = format!(
            "vertex_ai is not configured: there is no {key}; set {variable} or \
             vendors.vertex_ai.{key}"
        );
        VendorError::new(ErrorClass::Auth, message)
    })
}

/// Google's host for a location: regions have one each, `us` and `eu` one of another form.
fn host(location: &str) -> Result<Url, VendorError> {
    check_location(location)?;
    let host = match location {
        "global" => GLOBAL_HOST.to_owned(),
        region if region.contains('-') => format!("https://{region}-aiplatform.googleapis.com"),
        multi => format!("https://aiplatform.{multi}.rep.googleapis.com"),
    };
    Url::parse(&host).map_err(|_| invalid(format!("vertex_ai: no such location: {location}")))
}

/// A location becomes part of the host that gets our token: it must be nothing but a word.
pub(super) fn is_location(location: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let starts = location.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    starts && location.len() <= 63 && location.bytes().all(is_word) && !location.ends_with('-')
}

/// Project ids, with a domain in front of old ones, and project numbers.
pub(super) fn is_project(project: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
    !project.is_empty() && project.len() <= 100 && project.bytes().all(is_word)
}

fn check_location(location: &str) -> Result<(), VendorError> {
    if is_location(location) {
        Ok(())
    } else {
        Err(invalid(format!("vertex_ai: no location is named like this: {location}")))
    }
}

fn check_place(project: &str, location: &str) -> Result<(), VendorError> {
    check_location(location)?;
    if is_project(project) {
        Ok(())
    } else {
        Err(invalid(format!("vertex_ai: no project is named like this: {project}")))
    }
}

#[cfg(test)]
mod tests;
