//! The operator's program; everything it does is in the library.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    selextract_operator::run().await
}
