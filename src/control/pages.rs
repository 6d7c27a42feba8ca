//! An answer that may be long comes in pages: zlink begins a message anew each time that its buffer has to grow.

use std::iter::from_fn;
use std::pin::pin;

use futures_util::StreamExt;

use super::interface::{Control, Error, Status};

impl Status {
    /// As several answers, with so many secrets, files and refusals at most in each, and whether another one follows.
    pub fn pages(mut self, most: usize) -> impl Iterator<Item = (Self, bool)> {
        let mut secrets = std::mem::take(&mut self.secrets).into_iter();
        let mut files = std::mem::take(&mut self.files).into_iter();
        let mut refusals = std::mem::take(&mut self.refusals).into_iter();
        let mut next = Some(self);
        from_fn(move || {
            let mut page = next.take()?;
            page.secrets = secrets.by_ref().take(most).collect();
            page.files = files.by_ref().take(most).collect();
            page.refusals = refusals.by_ref().take(most).collect();
            let continues = secrets.len() + files.len() + refusals.len() > 0;
            if continues {
                next = Some(Self {
                    secrets: Vec::new(),
                    files: Vec::new(),
                    missed: Vec::new(),
                    refusals: Vec::new(),
                    requests: Vec::new(),
                    ..page.clone()
                });
            }
            Some((page, continues))
        })
    }
}

/// Asks for all of it.
pub async fn whole_status(service: &mut impl Control) -> zlink::Result<Result<Status, Error>> {
    let mut answers = pin!(service.status().await?);
    let gone = || zlink::Error::UnexpectedEof;
    let mut whole = match answers.next().await.ok_or_else(gone)?? {
        Ok(first) => first,
        Err(error) => return Ok(Err(error)),
    };
    while let Some(next) = answers.next().await {
        match next? {
            Ok(next) => {
                whole.secrets.extend(next.secrets);
                whole.files.extend(next.files);
                whole.refusals.extend(next.refusals);
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(whole))
}
