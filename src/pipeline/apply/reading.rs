//! What the apply loop reads: from where on, and to whom each event goes.

use super::Apply;
use super::tables::AppliedTable;
use crate::error::{Error, Kind, Result};
use crate::event::{CutPoint, TableId};
use crate::merge::Resume;
use crate::stream::{Consumer, LaneEvent, LogPosition};

impl Apply {
    /// Reads from where the tables need it. Those for which the stream no longer goes back far enough are stopped; the others go on.
    pub(super) async fn consumer(&mut self) -> Result<Consumer> {
        loop {
            let start = self.progress.start().map(|resume| (resume.point(), LogPosition(resume.log_position.clone())));
            let opened = match (&start, self.progress.floor()) {
                (None, Some(floor)) => Consumer::behind(self.log.as_ref(), floor).await,
                _ => Consumer::resume(self.log.as_ref(), start.as_ref().map(|(cut, position)| (*cut, position))).await,
            };
            match opened {
                Err(error) => self.strand(error)?,
                Ok(opened) => {
                    if let (None, Some(cut)) = (&start, self.progress.floor()) {
                        let log_position = opened.position().0.clone();
                        self.progress.begin_at(Resume { epoch: cut.epoch, cut: cut.number, log_position });
                    }
                    return Ok(opened);
                }
            }
        }
    }

    /// The stream can't be read from where it is needed first: stops the tables that need it there, if others begin later.
    pub(super) fn strand(&mut self, error: Error) -> Result<()> {
        let stranded = self.progress.stranded();
        if error.kind() != Kind::Corrupt || self.last_cut.is_some() {
            return Err(error);
        }
        if stranded.is_empty() {
            let Some(cut) = self.anew_behind.take() else { return Err(error) };
            tracing::warn!(%error, %cut, "the stream no longer has what the tables lack; they are copied anew, and read behind this cut");
            self.progress.begin_behind(cut);
            self.tables.values_mut().for_each(|applied| applied.pending.begin_anew());
            return Ok(());
        }
        let said = error.to_string();
        for table in stranded {
            let gone = Error::new(error.area(), Kind::Data, "the stream no longer has what the table lacks")
                .caused_by(std::io::Error::other(said.clone()))
                .remedy("run `binlake backfill --table` for it: its rows are then written anew");
            self.fail(&table, gone)?;
            self.progress.forget(&table);
        }
        self.progress.begin_later();
        // what was read so far comes again
        self.tables.values_mut().for_each(|applied| applied.pending.begin_anew());
        Ok(())
    }

    pub(super) fn take(&mut self, event: LaneEvent) -> Result<()> {
        self.notice(&event);
        match event {
            LaneEvent::Sections { epoch, window, lane, sections, .. } => {
                let closing = CutPoint { epoch, number: window };
                for section in &sections {
                    let table = section.table();
                    let Some(applied) = self.table(table) else { continue };
                    let (is_taken, is_revived) = applied.takes(lane, closing, section);
                    if !is_taken {
                        continue;
                    }
                    if is_revived {
                        tracing::info!(%table, "the table that was stopped is read anew");
                        let table = table.clone();
                        self.revived(&table, closing);
                    }
                    let Some(applied) = self.table(table) else { continue };
                    if let Err(error) = applied.pending.take_section(lane, closing, section) {
                        let table = table.clone();
                        self.fail(&table, error)?;
                    }
                }
            }
            LaneEvent::CutReached(reached) => {
                self.heed(&reached);
                if self.is_misled() {
                    return Ok(());
                }
                for (table, state) in &reached.cut.tables {
                    let status = self.status.clone();
                    if let Some(applied) = self.table(table) {
                        applied.stand(state, reached.point, &reached.cut.position);
                        if !applied.is_failed() {
                            status.table(table, state.into());
                        }
                    }
                }
                self.progress.reached(&reached);
                self.last_cut = Some(reached);
                self.tell_needs();
            }
            LaneEvent::Void { epoch, after_cut } => {
                self.status.met(epoch);
                for applied in self.tables.values_mut() {
                    applied.void(epoch, after_cut)?;
                }
            }
        }
        Ok(())
    }

    /// A table that the rules name; made at its first sight.
    pub(super) fn table(&mut self, table: &TableId) -> Option<&mut AppliedTable> {
        if !self.tables.contains_key(table) && self.shared.is_none() {
            self.config.rules.rule_for(table)?;
            let applied = AppliedTable::new(table, &self.config.rules, None, "");
            self.tables.insert(table.clone(), applied);
        }
        self.tables.get_mut(table)
    }
}
