//! Who asks the catalog: a token, or a name and a secret that an OAuth2 server gives one for. From the environment or from files that it
//! names, never from options, which people show to each other.

use std::collections::HashMap;

use super::fault::RestFault;

/// A token.
const TOKEN: &str = "LIVELAKE_CATALOG_TOKEN";
/// `name:secret`.
const CREDENTIAL: &str = "LIVELAKE_CATALOG_CREDENTIAL";
/// Where tokens are had for it; the catalog's own `v1/oauth/tokens` unless set.
const OAUTH_URL: &str = "LIVELAKE_CATALOG_OAUTH_URL";
/// What they are to be good for; `catalog` unless set.
const SCOPE: &str = "LIVELAKE_CATALOG_SCOPE";

/// What the OAuth2 server answers.
#[derive(serde::Deserialize)]
struct Given {
    access_token: String,
}

/// Reads a variable, or the file that it names with `_FILE` after its own name. Read anew each time: files are changed under us.
fn read(name: &str) -> Result<Option<String>, RestFault> {
    if let Ok(value) = std::env::var(name) {
        return Ok(Some(value.trim().to_owned()));
    }
    let Ok(path) = std::env::var(format!("{name}_FILE")) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) => {
            let message = format!("{name}_FILE: cannot read {path}: {error}");
            Err(RestFault { status: None, message, was_sent: false })
        }
    }
}

/// The token to show now; `None`: the catalog is asked without. `base` is the catalog's address.
pub(super) async fn token(client: &reqwest::Client, base: &str) -> Result<Option<String>, RestFault> {
    if let Some(token) = read(TOKEN)? {
        return Ok(Some(token));
    }
    let Some(credential) = read(CREDENTIAL)? else { return Ok(None) };
    let (name, secret) = credential.split_once(':').unwrap_or(("", &credential));
    let url = std::env::var(OAUTH_URL).unwrap_or_else(|_| format!("{base}/v1/oauth/tokens"));
    let scope = std::env::var(SCOPE).unwrap_or_else(|_| "catalog".into());
    let form = HashMap::from([
        ("grant_type", "client_credentials"),
        ("client_id", name),
        ("client_secret", secret),
        ("scope", scope.as_str()),
    ]);
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
    let unanswered = |error: reqwest::Error| RestFault::unanswered(&error, super::session::ANSWER_WITHIN);
    let answer = request.send().await.map_err(unanswered)?;
    let (status, body) = (answer.status(), answer.text().await.map_err(unanswered)?);
    if !status.is_success() {
        return Err(RestFault::answered(status.as_u16(), &body));
    }
    let given: Given = serde_json::from_str(&body).map_err(|_| RestFault::unreadable("no access_token for the credential"))?;
    Ok(Some(given.access_token))
}
