//! Which files of a table go with its next snapshot, and which lose rows.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::Result;
use iceberg::spec::{DataContentType, DataFile};
use roaring::RoaringBitmap;

use super::attempt::Attempt;
use super::{LiveFile, TableState, deletes};

/// See the module.
#[derive(Default)]
pub(crate) struct Turnover {
    /// Data files that go.
    pub(crate) removed: HashSet<String>,
    /// Data files that stay, with all that is gone of them from now on.
    pub(crate) thinned: Vec<(LiveFile, RoaringBitmap)>,
}

/// A table's files after the change.
pub(crate) struct Settled {
    /// Data files and delete files that come.
    pub(crate) added: Vec<DataFile>,
    /// Paths of data files and delete files that go.
    pub(crate) removed: HashSet<String>,
    pub(crate) deletes: Arc<deletes::Deletions>,
    /// Rows of the table then.
    pub(crate) records: u64,
}

impl Turnover {
    /// Everything goes, also what is not read here.
    pub(crate) fn all(base: &TableState) -> Turnover {
        let data = base.live().map(|(_, file)| file.path.clone()).collect();
        Turnover { removed: data, thinned: Vec::new() }
    }

    /// Writes the delete files, for data files of partition spec `spec_id`; `added` are the new data files.
    ///
    /// # Errors
    /// A delete file cannot be written.
    pub(crate) async fn settle(
        self,
        attempt: &Attempt,
        base: &TableState,
        spec_id: i32,
        prefix: &str,
        mut added: Vec<DataFile>,
    ) -> Result<Settled> {
        let Turnover { mut removed, thinned } = self;
        let mut new = Vec::with_capacity(thinned.len());
        for (index, (file, gone)) in thinned.iter().enumerate() {
            let path = format!("{prefix}-{:05}-deletes.parquet", index + 1);
            added.push(deletes::write(attempt, &path, file, spec_id, gone).await?);
            new.push((path, file.path.clone(), gone.clone()));
        }
        let settled: HashSet<&str> =
            removed.iter().map(String::as_str).chain(thinned.iter().map(|(file, _)| file.path.as_str())).collect();
        let mut deletes = base.deletes.as_ref().clone();
        let over = deletes.replace(&settled, new);
        let kept = base.live().filter(|(_, file)| !removed.contains(&file.path));
        let came = added.iter().filter(|file| file.content_type() == DataContentType::Data).map(DataFile::record_count);
        let records = kept.map(|(_, file)| file.records - deletes.count(&file.path)).chain(came).sum();
        removed.extend(over);
        // What cannot be read here is about files that are all gone.
        if base.live().all(|(_, file)| removed.contains(&file.path)) {
            let all = base.manifests.iter().flat_map(|manifest| manifest.live.iter());
            removed.extend(all.map(|file| file.path.clone()));
            deletes.unreadable = None;
        }
        Ok(Settled { added, removed, deletes: Arc::new(deletes), records })
    }
}
