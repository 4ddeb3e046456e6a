//! A site's login form: what a browser would send with it, with the credentials entered. Pure.

use scraper::{ElementRef, Html, Selector};
use selextract_task::credentials::FormLogin;
use url::Url;

/// What is sent.
pub(super) struct Filled {
    /// Where to; of the same origin as the page.
    pub(super) action: Url,
    /// Names and values in the order of the page.
    pub(super) fields: Vec<(String, String)>,
}

/// Fills the form in. An error says what is wrong with the page.
pub(super) fn fill(html: &Html, base: &Url, page: &Url, login: &FormLogin) -> Result<Filled, String> {
    let password = find(html, &login.password_field).ok_or("the login page has no field for the password")?;
    let username = find(html, &login.username_field).ok_or("the login page has no field for the user")?;
    let form = form_of(password).ok_or("the field for the password is in no form; use render Browser")?;
    let method = form.attr("method").unwrap_or("get");
    if !method.trim().eq_ignore_ascii_case("post") {
        return Err("the login form would put the password into an address; use render Browser".to_owned());
    }
    let action = form.attr("action").filter(|action| !action.trim().is_empty());
    let action = action.map_or_else(|| Some(page.clone()), |action| base.join(action.trim()).ok());
    let action = action
        .filter(|action| action.origin() == page.origin())
        .ok_or("the login form leads to another origin")?;
    let name = |field: ElementRef<'_>| field.attr("name").filter(|name| !name.is_empty()).map(str::to_owned);
    let (Some(username), Some(password)) = (name(username), name(password)) else {
        return Err("a field of the login form has no name; use render Browser".to_owned());
    };
    let mut fields = controls(form);
    set(&mut fields, &username, login.username.expose());
    set(&mut fields, &password, login.password.expose());
    for (name, value) in &login.extra {
        set(&mut fields, name, value.expose());
    }
    Ok(Filled { action, fields })
}

/// Whether the page still asks for the password.
pub(super) fn asks(html: &Html, login: &FormLogin) -> bool {
    find(html, &login.password_field).is_some()
}

/// The first element that a CSS selector matches.
pub(super) fn find<'h>(html: &'h Html, selector: &str) -> Option<ElementRef<'h>> {
    let selector = Selector::parse(selector).ok()?;
    html.select(&selector).next()
}

fn form_of(field: ElementRef<'_>) -> Option<ElementRef<'_>> {
    field
        .ancestors()
        .filter_map(ElementRef::wrap)
        .find(|element| element.value().name() == "form")
}

fn set(fields: &mut Vec<(String, String)>, name: &str, value: &str) {
    match fields.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => fields.push((name.to_owned(), value.to_owned())),
    }
}

/// The form's successful controls (HTML, "constructing the entry list"), the first button among them.
fn controls(form: ElementRef<'_>) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut pressed = false;
    for element in form.descendent_elements() {
        let Some(name) = element.attr("name").filter(|name| !name.is_empty()) else {
            continue;
        };
        if element.attr("disabled").is_some() {
            continue;
        }
        let kind = element.attr("type").unwrap_or_default().to_ascii_lowercase();
        let value = match (element.value().name(), kind.as_str()) {
            ("input", "image" | "file" | "reset" | "button") | ("button", "reset" | "button") => None,
            ("input", "submit") | ("button", _) => {
                let value = (!pressed).then(|| element.attr("value").unwrap_or_default().to_owned());
                pressed = true;
                value
            }
            ("input", "checkbox" | "radio") => {
                let checked = element.attr("checked").is_some();
                checked.then(|| element.attr("value").unwrap_or("on").to_owned())
            }
            ("input", _) => Some(element.attr("value").unwrap_or_default().to_owned()),
            ("textarea", _) => Some(element.text().collect()),
            ("select", _) => chosen(element),
            _ => None,
        };
        fields.extend(value.map(|value| (name.to_owned(), value)));
    }
    fields
}

fn chosen(select: ElementRef<'_>) -> Option<String> {
    let options = || {
        select
            .descendent_elements()
            .filter(|option| option.value().name() == "option")
    };
    let option = options()
        .find(|option| option.attr("selected").is_some())
        .or_else(|| options().next())?;
    Some(
        option
            .attr("value")
            .map_or_else(|| option.text().collect::<String>().trim().to_owned(), str::to_owned),
    )
}

#[cfg(test)]
mod tests {
    use selextract_task::credentials::{SiteCredentials, Way};
    use serde_json::json;

    use super::*;

    fn login() -> FormLogin {
        let credentials: SiteCredentials = serde_json::from_value(json!({
            "origin": "https://shop.example",
            "formLogin": {
                "loginUrl": "/login", "usernameField": "#user", "username": "ann", "password": "pass", "extra": { "tenant": "blue" },
            },
        }))
        .unwrap();
        match credentials.check().unwrap().way {
            Way::Form { login, .. } => *login,
            _ => panic!("a form"),
        }
    }

    fn filled(html: &str) -> Result<(String, String), String> {
        let page: Url = "https://shop.example/login".parse().unwrap();
        let filled = fill(&Html::parse_document(html), &page, &page, &login())?;
        let fields: Vec<String> = filled
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Ok((filled.action.into(), fields.join("&")))
    }

    #[test]
    fn a_form_is_sent_as_a_browser_sends_it_with_its_hidden_fields() {
        let html = "<form action=/search><input name=q></form>
            <form method=POST action='session?x=1'>
            <input type=hidden name=csrf value=t0k3n><input id=user name=email><input type=password name=pw>
            <input type=checkbox name=stay checked><input type=checkbox name=spam><input name=off disabled value=1>
            <select name=lang><option>de<option selected value=en>English</select><textarea name=note>hi</textarea>
            <input type=file name=f><button name=go value=in>In</button><input type=submit name=other value=x></form>";
        assert_eq!(
            filled(html).unwrap(),
            (
                "https://shop.example/session?x=1".to_owned(),
                "csrf=t0k3n&email=ann&pw=pass&stay=on&lang=en&note=hi&go=in&tenant=blue".to_owned()
            )
        );
    }

    #[test]
    fn a_form_that_would_carry_the_password_away_is_not_sent() {
        let with = |attributes: &str| {
            filled(&format!(
                "<form {attributes}><input id=user name=u><input type=password name=p></form>"
            ))
        };
        assert!(
            with("method=post action=https://evil.test/")
                .unwrap_err()
                .contains("another origin")
        );
        assert!(
            with("method=post action=http://shop.example/")
                .unwrap_err()
                .contains("another origin")
        );
        assert!(with("action=/login").unwrap_err().contains("address"));
        assert_eq!(with("method=post").unwrap().0, "https://shop.example/login");
        assert!(
            filled("<p>maintenance")
                .unwrap_err()
                .contains("no field for the password")
        );
        assert!(
            filled("<input id=user name=u><input type=password name=p>")
                .unwrap_err()
                .contains("in no form")
        );
    }
}
