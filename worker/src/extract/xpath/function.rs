//! The functions of XPath 1.0, section 4.

use selextract_task::xpath::{Expression, Function};

use super::{Evaluation, ExtractError, Here, Value, check_text, value};

impl Evaluation<'_> {
    pub(super) fn call<'a>(
        self,
        function: Function,
        arguments: &[Expression],
        here: Here<'a>,
    ) -> Result<Value<'a>, ExtractError> {
        Ok(match function {
            Function::Position => Value::Number(counted(here.position)),
            Function::Last => Value::Number(counted(here.size)),
            Function::Count => Value::Number(counted(self.nodes(&arguments[0], here)?.len())),
            Function::Sum => Value::Number(self.sum(&arguments[0], here)?),
            Function::Name => Value::Text(self.name(arguments, here)?),
            Function::True => Value::Truth(true),
            Function::False => Value::Truth(false),
            Function::Not => Value::Truth(!self.truth(&arguments[0], here)?),
            Function::Boolean => Value::Truth(self.truth(&arguments[0], here)?),
            Function::Number => Value::Number(value::number_of(Value::Text(self.or_here(arguments, here)?))),
            Function::Floor => Value::Number(self.number(&arguments[0], here)?.floor()),
            Function::Ceiling => Value::Number(self.number(&arguments[0], here)?.ceil()),
            Function::Round => Value::Number(rounded(self.number(&arguments[0], here)?)),
            Function::String => Value::Text(self.or_here(arguments, here)?),
            Function::StringLength => Value::Number(counted(self.or_here(arguments, here)?.chars().count())),
            Function::NormalizeSpace => {
                let text = self.or_here(arguments, here)?;
                Value::Text(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            }
            Function::Concat => {
                let mut all = String::new();
                for argument in arguments {
                    all.push_str(&self.text(argument, here)?);
                    check_text(all.len())?;
                }
                Value::Text(all)
            }
            _ => self.text_call(function, arguments, here)?,
        })
    }

    /// The functions of two texts and more.
    fn text_call<'a>(
        self,
        function: Function,
        arguments: &[Expression],
        here: Here<'a>,
    ) -> Result<Value<'a>, ExtractError> {
        let text = self.text(&arguments[0], here)?;
        if function == Function::Substring {
            let start = self.number(&arguments[1], here)?;
            let length = arguments.get(2).map(|length| self.number(length, here)).transpose()?;
            return Ok(Value::Text(substring(&text, start, length)));
        }
        let other = self.text(&arguments[1], here)?;
        let split = text.split_once(&other);
        Ok(match function {
            Function::Contains => Value::Truth(split.is_some()),
            Function::StartsWith => Value::Truth(text.starts_with(&other)),
            Function::SubstringBefore => Value::Text(split.unwrap_or_default().0.to_owned()),
            Function::SubstringAfter => Value::Text(split.unwrap_or_default().1.to_owned()),
            _ => Value::Text(translated(&text, &other, &self.text(&arguments[2], here)?)),
        })
    }

    /// The text of the argument, or of the node at hand.
    fn or_here(self, arguments: &[Expression], here: Here<'_>) -> Result<String, ExtractError> {
        if let [argument] = arguments {
            return match self.value(argument, here)? {
                // Numbers stay what they are on their way through a text.
                value @ Value::Number(_) => Ok(value::text_of(value)),
                value => {
                    let text = value::text_of(value);
                    self.budget.read(text.len())?;
                    Ok(text)
                }
            };
        }
        let text = value::node_text(here.node);
        self.budget.read(text.len())?;
        Ok(text)
    }

    fn name(self, arguments: &[Expression], here: Here<'_>) -> Result<String, ExtractError> {
        let node = match arguments {
            [argument] => self.nodes(argument, here)?.first().copied(),
            _ => Some(here.node),
        };
        Ok(node.and_then(super::XNode::name).unwrap_or_default().to_owned())
    }

    fn sum(self, argument: &Expression, here: Here<'_>) -> Result<f64, ExtractError> {
        let mut sum = 0.0;
        for node in self.nodes(argument, here)? {
            let text = value::node_text(node);
            self.budget.read(text.len())?;
            sum += value::number_of(Value::Text(text));
        }
        Ok(sum)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a set has at most a million nodes, a page ten million characters"
)]
fn counted(count: usize) -> f64 {
    count as f64
}

/// Halves go up, also negative ones.
fn rounded(number: f64) -> f64 {
    (number + 0.5).floor()
}

/// The characters whose position, from 1, is at least `start` and less than `start + length`, both rounded.
fn substring(text: &str, start: f64, length: Option<f64>) -> String {
    let start = rounded(start);
    let end = length.map_or(f64::INFINITY, |length| start + rounded(length));
    let within = |index: usize| {
        let position = counted(index + 1);
        position >= start && position < end
    };
    let kept = text.chars().enumerate().filter(|(index, _)| within(*index));
    kept.map(|(_, c)| c).collect()
}

/// Each character of `from` becomes its counterpart in `to`, or goes where there is none.
fn translated(text: &str, from: &str, to: &str) -> String {
    let to: Vec<char> = to.chars().collect();
    text.chars()
        .filter_map(|c| match from.chars().position(|from| from == c) {
            Some(index) => to.get(index).copied(),
            None => Some(c),
        })
        .collect()
}
