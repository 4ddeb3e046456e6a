//! Who sends a request: the user of its access token or API key. Found out once for a request, by [`crate::admission`].

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use selextract_platform::ledger::UserId;
use uuid::Uuid;

use super::{Role, tokens};
use crate::{problem::Problem, state::AppState};

/// The user behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's id.
    pub id: Uuid,
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// What a request's credentials say, among its extensions.
#[derive(Clone, Debug)]
pub struct Identity(pub Result<Caller, Problem>);

/// A caller whose role is admin.
#[derive(Clone, Debug)]
pub struct Admin(pub Caller);

impl Caller {
    /// The caller as an owner of tasks.
    pub const fn owner(&self) -> UserId {
        UserId(self.id)
    }

    /// Whose task it must be for the caller to reach it: an admin reaches anybody's.
    pub fn reach(&self) -> Option<UserId> {
        (self.role != Role::Admin).then(|| self.owner())
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        match parts.extensions.get::<Identity>() {
            Some(Identity(found)) => found.clone(),
            None => Err(Problem::unauthenticated()),
        }
    }
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if caller.role == Role::Admin {
            Ok(Self(caller))
        } else {
            Err(Problem::forbidden())
        }
    }
}

/// The caller by a request's credentials; `None` when it has none.
pub async fn identify(state: &AppState, credential: Option<&str>) -> Option<Result<Caller, Problem>> {
    let credential = credential?;
    Some(if tokens::is_api_key(credential) {
        by_api_key(state, credential).await
    } else {
        by_token(state, credential).await
    })
}

async fn by_token(state: &AppState, token: &str) -> Result<Caller, Problem> {
    let claims = state.tokens.verify(token).map_err(|error| {
        tracing::debug!(%error, "A request was refused.");
        Problem::unauthenticated()
    })?;
    let role = state.standings.role(claims.sub).await?;
    Ok(Caller {
        id: claims.sub,
        name: claims.name,
        role: role.ok_or_else(Problem::unauthenticated)?,
    })
}

/// Asked each time and never cached: a revoked key is refused from the next request on.
async fn by_api_key(state: &AppState, key: &str) -> Result<Caller, Problem> {
    let user = state.ledger.user_of_api_key(&tokens::hash_of(key)).await?;
    let user = user.ok_or_else(Problem::unauthenticated)?;
    Ok(Caller {
        id: user.id.0,
        role: Role::of(&user),
        name: user.name,
    })
}

/// The API key or access token that a request brings.
pub fn credential(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok().filter(|key| tokens::is_api_key(key));
    }
    bearer(headers)
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_credential_comes_as_bearer_or_as_an_api_key() {
        assert_eq!(credential(&headers("authorization", "bearer abc")), Some("abc"));
        assert_eq!(credential(&headers("x-api-key", "sxk_1")), Some("sxk_1"));
        assert_eq!(
            credential(&headers("x-api-key", "abc")),
            None,
            "an access token is not an API key"
        );
        assert_eq!(credential(&headers("authorization", "Basic abc")), None);
        assert_eq!(credential(&HeaderMap::new()), None);
    }
}
