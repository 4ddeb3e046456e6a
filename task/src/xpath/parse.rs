//! From text to an expression: XPath 1.0, section 3, by recursive descent.

use super::{Axis, Comparison, Expression, FUNCTIONS, NodeTest, Operator, Path, Start, Step};

/// Brackets in each other; bounds the recursion here and in the evaluation.
const MAX_DEPTH: usize = 16;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// An operator or a piece of punctuation.
    Sign(&'static str),
    /// A name, also one that is an operator here, such as `and`.
    Name(String),
    Text(String),
    Number(f64),
}

const SIGNS: [&str; 21] = [
    "//", "::", "..", "!=", "<=", ">=", "/", ".", "(", ")", "[", "]", "@", ",", "|", "+", "-", "=", "<", ">", "*",
];

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser {
        tokens: &tokens,
        depth: 0,
    };
    let expression = parser.expression()?;
    match parser.tokens.first() {
        None => Ok(expression),
        Some(token) => Err(format!("is not an XPath: {} is not expected", shown(token))),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first == '"' || first == '\'' {
            let inner = rest[1..].split(first).next().unwrap_or_default();
            if inner.len() + 2 > rest.len() {
                return Err("is not an XPath: a quotation mark is not closed".to_owned());
            }
            (Token::Text(inner.to_owned()), inner.len() + 2)
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let number = rest[..end].parse();
            let number = number.map_err(|_| format!("is not an XPath: {:?} is not a number", &rest[..end]))?;
            (Token::Number(number), end)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            let length = name_length(rest);
            if length == 0 {
                return Err(format!("is not an XPath: {first:?} is not expected"));
            }
            (Token::Name(rest[..length].to_owned()), length)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// The length of the name that a text begins with; one colon belongs to it (`media:content`), two are an axis.
fn name_length(text: &str) -> usize {
    let part = |text: &str| {
        let is_start = |c: char| c.is_alphabetic() || c == '_';
        if !text.starts_with(is_start) {
            return 0;
        }
        text.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.'))
            .unwrap_or(text.len())
    };
    let first = part(text);
    match text[first..].strip_prefix(':') {
        Some(rest) if first > 0 && part(rest) > 0 => first + 1 + part(rest),
        _ => first,
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Sign(sign) => format!("{sign:?}"),
        Token::Name(name) => format!("{name:?}"),
        Token::Text(text) => format!("the text {text:?}"),
        Token::Number(number) => format!("the number {number}"),
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

type Parsed = Result<Expression, String>;

impl Parser<'_> {
    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Sign(found)) if *found == sign);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    /// Takes a name where an operator must stand.
    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Name(name)) if name == word);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.tokens.first().map_or_else(|| "the end".to_owned(), shown);
        Err(format!("is not an XPath: {sign:?} is expected and not {found}"))
    }

    /// An expression at any depth of brackets.
    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nests brackets more than {MAX_DEPTH} deep"));
        }
        let mut left = self.and()?;
        while self.take_word("or") {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.equality()?;
        while self.take_word("and") {
            left = Expression::And(Box::new(left), Box::new(self.equality()?));
        }
        Ok(left)
    }

    fn equality(&mut self) -> Parsed {
        let signs = [("=", Comparison::Equal), ("!=", Comparison::NotEqual)];
        self.comparison(&signs, Self::relation)
    }

    fn relation(&mut self) -> Parsed {
        let signs = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        self.comparison(&signs, Self::sum)
    }

    fn comparison(&mut self, signs: &[(&str, Comparison)], operand: fn(&mut Self) -> Parsed) -> Parsed {
        let mut left = operand(self)?;
        while let Some((_, comparison)) = signs.iter().find(|(sign, _)| self.take(sign)) {
            left = Expression::Compare(*comparison, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        loop {
            let operator = if self.take("+") {
                Operator::Add
            } else if self.take("-") {
                Operator::Subtract
            } else {
                return Ok(left);
            };
            left = Expression::Arithmetic(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.negation()?;
        loop {
            let operator = if self.take("*") {
                Operator::Multiply
            } else if self.take_word("div") {
                Operator::Divide
            } else if self.take_word("mod") {
                Operator::Modulo
            } else {
                return Ok(left);
            };
            left = Expression::Arithmetic(operator, Box::new(left), Box::new(self.negation()?));
        }
    }

    fn negation(&mut self) -> Parsed {
        let mut negative = false;
        let mut signed = false;
        while self.take("-") {
            negative = !negative;
            signed = true;
        }
        let operand = self.union()?;
        let once = |operand| Expression::Negate(Box::new(operand));
        Ok(match (signed, negative) {
            (false, _) => operand,
            (true, true) => once(operand),
            (true, false) => once(once(operand)),
        })
    }

    fn union(&mut self) -> Parsed {
        let mut left = self.path()?;
        while self.take("|") {
            left = Expression::Union(Box::new(left), Box::new(self.path()?));
        }
        Ok(left)
    }

    /// A path, or what one can begin with.
    fn path(&mut self) -> Parsed {
        let mut steps = Vec::new();
        if self.take("//") {
            self.below(&mut steps)?;
            return self.steps(Start::Root, steps);
        }
        if self.take("/") {
            if self.begins_step() {
                steps.push(self.step()?);
            }
            return self.steps(Start::Root, steps);
        }
        if let Some(start) = self.primary()? {
            let predicates = self.predicates()?;
            let continues = matches!(self.tokens.first(), Some(Token::Sign("/" | "//")));
            if predicates.is_empty() && !continues {
                return Ok(start);
            }
            return self.steps(Start::Nodes(Box::new(start), predicates), steps);
        }
        steps.push(self.step()?);
        self.steps(Start::Here, steps)
    }

    fn steps(&mut self, start: Start, mut steps: Vec<Step>) -> Parsed {
        loop {
            if self.take("//") {
                self.below(&mut steps)?;
            } else if self.take("/") {
                steps.push(self.step()?);
            } else {
                return Ok(Expression::Path(Path { start, steps }));
            }
        }
    }

    /// What stands after `//`: `descendant-or-self::node()/child::x`, which is `descendant::x` where no position is asked for.
    fn below(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        let step = self.step()?;
        if step.axis == Axis::Child && !step.positional {
            steps.push(Step {
                axis: Axis::Descendant,
                ..step
            });
        } else {
            steps.push(plain(Axis::DescendantOrSelf, NodeTest::Node));
            steps.push(step);
        }
        Ok(())
    }

    /// A text, a number, a call or an expression in brackets; `None` when a step begins here.
    fn primary(&mut self) -> Result<Option<Expression>, String> {
        match self.tokens {
            [Token::Text(text), rest @ ..] => {
                self.tokens = rest;
                Ok(Some(Expression::Text(text.clone())))
            }
            [Token::Number(number), rest @ ..] => {
                self.tokens = rest;
                Ok(Some(Expression::Number(*number)))
            }
            [Token::Sign("("), rest @ ..] => {
                self.tokens = rest;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(Some(inner))
            }
            [Token::Name(name), Token::Sign("("), rest @ ..] if node_type(name).is_none() => {
                self.tokens = rest;
                self.call(name).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A call whose opening bracket was taken.
    fn call(&mut self, name: &str) -> Parsed {
        let known = FUNCTIONS.iter().find(|(known, ..)| *known == name);
        let Some(&(_, function, least, most)) = known else {
            let names: Vec<_> = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("calls {name:?}; the functions are {}", names.join(", ")));
        };
        let mut arguments = Vec::new();
        if !self.take(")") {
            arguments.push(self.expression()?);
            while self.take(",") {
                arguments.push(self.expression()?);
            }
            self.expect(")")?;
        }
        if !(least..=most).contains(&arguments.len()) {
            return Err(format!(
                "gives {name} {} arguments; it takes {least} to {most}",
                arguments.len()
            ));
        }
        Ok(Expression::Call(function, arguments))
    }

    fn begins_step(&self) -> bool {
        matches!(
            self.tokens.first(),
            Some(Token::Name(_) | Token::Sign("." | ".." | "@" | "*"))
        )
    }

    fn step(&mut self) -> Result<Step, String> {
        if self.take("..") {
            return Ok(plain(Axis::Parent, NodeTest::Node));
        }
        if self.take(".") {
            return Ok(plain(Axis::This, NodeTest::Node));
        }
        let axis = self.axis()?;
        let test = self.test()?;
        let predicates = self.predicates()?;
        let positional = predicates.iter().any(Expression::is_positional);
        Ok(Step {
            axis,
            test,
            predicates,
            positional,
        })
    }

    fn axis(&mut self) -> Result<Axis, String> {
        if self.take("@") {
            return Ok(Axis::Attribute);
        }
        if let [Token::Name(name), Token::Sign("::"), rest @ ..] = self.tokens {
            self.tokens = rest;
            return Axis::named(name).ok_or_else(|| format!("is not an XPath: there is no axis {name:?}"));
        }
        Ok(Axis::Child)
    }

    fn test(&mut self) -> Result<NodeTest, String> {
        match self.tokens {
            [Token::Sign("*"), rest @ ..] => {
                self.tokens = rest;
                Ok(NodeTest::Any)
            }
            [Token::Name(name), Token::Sign("("), Token::Sign(")"), rest @ ..] => {
                self.tokens = rest;
                node_type(name).ok_or_else(|| format!("is not an XPath: a step cannot call {name:?}"))
            }
            [Token::Name(name), rest @ ..] => {
                self.tokens = rest;
                Ok(NodeTest::Name(name.clone()))
            }
            [token, ..] => Err(format!("is not an XPath: {} is not a step", shown(token))),
            [] => Err("is not an XPath: a step is missing at its end".to_owned()),
        }
    }

    fn predicates(&mut self) -> Result<Vec<Expression>, String> {
        let mut predicates = Vec::new();
        while self.take("[") {
            predicates.push(self.expression()?);
            self.expect("]")?;
        }
        Ok(predicates)
    }
}

fn plain(axis: Axis, test: NodeTest) -> Step {
    Step {
        axis,
        test,
        predicates: Vec::new(),
        positional: false,
    }
}

fn node_type(name: &str) -> Option<NodeTest> {
    match name {
        "node" => Some(NodeTest::Node),
        "text" => Some(NodeTest::Text),
        "comment" => Some(NodeTest::Comment),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(text: &str) -> Vec<Axis> {
        match parse(text).unwrap() {
            Expression::Path(path) => path.steps.iter().map(|step| step.axis).collect(),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn double_slashes_become_one_step_where_no_position_is_asked_for() {
        assert_eq!(axes("//a[@b]"), [Axis::Descendant]);
        assert_eq!(axes("//a[1]"), [Axis::DescendantOrSelf, Axis::Child]);
        assert_eq!(axes(".//a[last()]"), [Axis::This, Axis::DescendantOrSelf, Axis::Child]);
        assert_eq!(axes("//@href"), [Axis::DescendantOrSelf, Axis::Attribute]);
    }

    #[test]
    fn a_star_and_the_words_of_operators_are_names_where_a_name_must_stand() {
        assert!(parse("div/div div div").is_ok());
        assert!(parse("* * *").is_ok());
        assert!(parse("//or[and or mod]").is_ok());
    }

    #[test]
    fn what_is_no_xpath_is_refused_with_what_is_wrong() {
        for (text, wrong) in [
            ("//a[", "a step is missing at its end"),
            ("//a]", "\"]\" is not expected"),
            ("'a", "a quotation mark is not closed"),
            ("following::", "a step is missing"),
            ("sideways::a", "there is no axis \"sideways\""),
            ("matches(., 'a')", "calls \"matches\""),
            ("contains(.)", "gives contains 1 arguments"),
            ("//a $b", "'$' is not expected"),
            ("", "a step is missing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn brackets_may_not_nest_without_end() {
        let text = format!("{}1{}", "(".repeat(400), ")".repeat(400));
        assert_eq!(parse(&text).unwrap_err(), "nests brackets more than 16 deep");
    }

    #[test]
    fn a_prefix_belongs_to_the_name_and_an_axis_does_not() {
        assert_eq!(axes("media:content/self::node()"), [Axis::Child, Axis::This]);
    }
}
