//! One statement for many calls, which must not cost any of them its own answer.

use super::error::is_unavailable;

/// Runs a statement for all items; where the database refuses it for what one of them holds, for each item alone.
///
/// A statement is its own transaction: one that was refused has changed nothing. Where the database could not be reached nobody knows,
/// and everybody is told so.
pub(super) async fn all_or_each<I, O, F>(items: Vec<I>, run: impl Fn(Vec<I>) -> F) -> Vec<Result<O, sqlx::Error>>
where
    I: Clone,
    F: Future<Output = Result<Vec<O>, sqlx::Error>>,
{
    let count = items.len();
    match run(items.clone()).await {
        Ok(answers) if answers.len() == count => answers.into_iter().map(Ok).collect(),
        Ok(_) => items.iter().map(|_| Err(sqlx::Error::RowNotFound)).collect(),
        Err(error) if count == 1 => vec![Err(error)],
        Err(error @ sqlx::Error::Database(_)) if !is_unavailable(&error) => {
            let mut answers = Vec::with_capacity(count);
            for item in items {
                let answer = run(vec![item]).await;
                answers.push(answer.and_then(|answers| answers.into_iter().next().ok_or(sqlx::Error::RowNotFound)));
            }
            answers
        }
        Err(error) => items.iter().map(|_| Err(again(&error))).collect(),
    }
}

/// An error that says the same, for the next who asked.
fn again(error: &sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::PoolTimedOut => sqlx::Error::PoolTimedOut,
        sqlx::Error::PoolClosed => sqlx::Error::PoolClosed,
        other => sqlx::Error::Io(std::io::Error::other(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_cannot_be_reached_is_told_to_everybody() {
        let answers = all_or_each(vec![1, 2, 3], async |_| Err::<Vec<()>, _>(sqlx::Error::PoolTimedOut)).await;
        assert_eq!(answers.len(), 3);
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Err(sqlx::Error::PoolTimedOut)))
        );
    }

    #[tokio::test]
    async fn each_gets_its_answer_in_order() {
        let answers = all_or_each(vec![1, 2, 3], async |items: Vec<i32>| Ok(items)).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [1, 2, 3]);
    }
}
