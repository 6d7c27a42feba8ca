//! One fetch's requests, one after the other, and whose fault it is when one fails: the provider's, or that of what was asked
//! for.

use super::known::Names;
use super::{Account, Target};
use crate::providers::error::FetchError;

pub struct Asking<'a, A> {
    account: &'a A,
    pub names: Names,
    /// How it went to list the vaults for this fetch, if that was done.
    vaults: Option<Result<(), FetchError>>,
    /// Something was answered in this fetch.
    answered: bool,
    /// The provider was found not to work: nothing more is asked of it in this fetch.
    over: Option<FetchError>,
}

impl<'a, A: Account> Asking<'a, A> {
    pub fn new(account: &'a A, names: Names) -> Self {
        let vaults = names.vaults_are_current().then_some(Ok(()));
        Self { account, names, answered: vaults.is_some(), vaults, over: None }
    }

    /// Nothing was asked yet.
    pub fn nothing_is_known(&self) -> bool {
        self.vaults.is_none() && !self.answered && self.over.is_none()
    }

    pub fn list_vaults(&mut self) -> Result<(), FetchError> {
        if self.vaults.is_none() {
            let listed = self.try_to(A::vaults);
            let listed = listed.map(|vaults| self.names.set_vaults(vaults));
            // There may be references that need no list.
            if let Err(error) = &listed
                && !error.is_about_the_answer()
            {
                self.over = Some(error.clone());
            }
            self.vaults = Some(listed);
        }
        self.vaults.clone().unwrap_or(Ok(()))
    }

    /// Asks for something that is part of the account.
    pub fn ask<T>(
        &mut self,
        target: Target<'_>,
        request: impl FnOnce(&A) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        self.try_to(request).map_err(|error| self.blame(error, target))
    }

    /// The same, with an error that is still to be blamed on somebody.
    pub fn try_to<T>(&mut self, request: impl FnOnce(&A) -> Result<T, FetchError>) -> Result<T, FetchError> {
        if let Some(over) = &self.over {
            return Err(over.clone());
        }
        let result = request(self.account);
        self.answered |= result.is_ok();
        result
    }

    /// Finds out whether a failed request for a part of the account is the fault of that part alone.
    pub fn blame(&mut self, error: FetchError, target: Target<'_>) -> FetchError {
        if self.over.is_some() {
            return error;
        }
        let is_of_part = match &error {
            // Frozen accounts and tokens without rights are told so of whatever they ask for.
            FetchError::Forbidden { .. } => {
                return self.list_vaults().err().filter(|_| self.over.is_some()).unwrap_or(error);
            }
            error if error.is_about_the_answer() => self.answered || self.list_vaults().is_ok(),
            // The connection may be gone since something was answered.
            FetchError::Unreachable { .. } => {
                self.vaults = None;
                self.list_vaults().is_ok()
            }
            error => !error.consequences().provider_is_down,
        };
        if is_of_part {
            let is_verdict = !error.consequences().provider_is_down;
            return if is_verdict { error } else { error.of_part(&target) };
        }
        self.over.get_or_insert(error).clone()
    }
}
