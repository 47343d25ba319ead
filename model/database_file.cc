// SPDX-License-Identifier: Apache-2.0
#include "model/database_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "io/file.h"
#include "model/schema.h"

namespace imgfsck {
namespace {

Status RefuseExisting(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) == 0) {
    return Error{ErrorCode::kExists, path + " exists already and is not overwritten", {}};
  }
  if (errno != ENOENT) return ErrorFromErrno(errno, "look for " + path);
  return Ok();
}

// An empty file beside `path`, with the permissions that any new file gets.
Result<std::string> MakeTemporary(const std::string& path) {
  const std::string pattern = path + ".XXXXXX";
  std::vector<char> name(pattern.c_str(), pattern.c_str() + pattern.size() + 1);
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return ErrorFromErrno(errno, "create a file beside " + path);
  const mode_t mask = umask(0);
  umask(mask);
  const bool moded = fchmod(fd, 0666 & ~mask) == 0;
  const int error = errno;
  close(fd);
  if (moded || error == EPERM || error == ENOTSUP) return std::string(name.data());
  unlink(name.data());
  return ErrorFromErrno(error, "create a file beside " + path);
}

Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrorFromErrno(errno, "open " + path);
  const int code = fsync(fd);
  const int error = errno;
  close(fd);
  if (code != 0) return ErrorFromErrno(error, "write " + path);
  return Ok();
}

// Gives `from` the name `to`, which nobody may have taken meanwhile.
Status RenameWithoutOverwriting(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return Ok();
  if (errno != EINVAL && errno != ENOSYS) return ErrorFromErrno(errno, "create " + to);
  // A file system that cannot do that: a link refuses an existing name, too.
  if (link(from.c_str(), to.c_str()) == 0) {
    unlink(from.c_str());
    return Ok();
  }
  if (errno != EPERM && errno != ENOTSUP) return ErrorFromErrno(errno, "create " + to);
  IMG_RETURN_IF_ERROR(RefuseExisting(to));
  if (rename(from.c_str(), to.c_str()) != 0) return ErrorFromErrno(errno, "create " + to);
  return Ok();
}

}  // namespace

Result<std::unique_ptr<DatabaseFile>> DatabaseFile::Create(const std::string& path) {
  IMG_RETURN_IF_ERROR(RefuseExisting(path));
  std::unique_ptr<DatabaseFile> file(new DatabaseFile(path));
  IMG_RETURN_IF_ERROR(file->Open());
  return file;
}

DatabaseFile::~DatabaseFile() {
  db_.reset();
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Status DatabaseFile::Open() {
  IMG_ASSIGN_OR_RETURN(temporary_, MakeTemporary(path_));
  IMG_ASSIGN_OR_RETURN(db_, OpenSqlite(temporary_, SQLITE_OPEN_READWRITE));
  // Nobody sees the file before it is complete, so no journal is needed; Finish() syncs it. Our
  // own rows need no checking against the schema's CHECKs.
  IMG_RETURN_IF_ERROR(Exec(db_.get(),
                           "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                           "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -65536;"
                           "PRAGMA ignore_check_constraints = ON"));
  return Exec(db_.get(), kSchemaSql);
}

Status DatabaseFile::Add(const ModelSource& source) {
  sqlite3* db = db_.get();
  IMG_RETURN_IF_ERROR(Exec(db, "ATTACH ':memory:' AS live"));
  {
    IMG_ASSIGN_OR_RETURN(auto live, LiveTables::Create(db, "live", source));
    IMG_RETURN_IF_ERROR(Exec(db, "BEGIN"));
    for (const SchemaTable& table : Schema()) {
      if (table.is_view) continue;
      Status copied =
          Exec(db, "INSERT INTO main." + table.name + " SELECT * FROM live." + table.name);
      if (!copied) return live->Explain(std::move(copied).error());
    }
    IMG_RETURN_IF_ERROR(Exec(db, "COMMIT"));
    IMG_RETURN_IF_ERROR(Exec(db, "DETACH live"));
  }
  return Ok();
}

Status DatabaseFile::AddDatabase(const std::string& path) {
  sqlite3* db = db_.get();
  IMG_RETURN_IF_ERROR(Exec(db, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON"));
  IMG_ASSIGN_OR_RETURN(Statement attach, Statement::Prepare(db, "ATTACH ? AS other"));
  sqlite3_bind_text64(attach.get(), 1, path.data(), path.size(), SQLITE_STATIC, SQLITE_UTF8);
  IMG_ASSIGN_OR_RETURN([[maybe_unused]] const bool row, attach.Step());
  attach = {};
  Status copied = Exec(db, "BEGIN");
  for (const SchemaTable& table : Schema()) {
    if (table.is_view || !copied) continue;
    copied = Exec(db, "INSERT INTO main." + table.name + " SELECT * FROM other." + table.name);
  }
  if (copied) copied = Exec(db, "COMMIT");
  if (!copied) {
    (void)Exec(db, "ROLLBACK");
    (void)Exec(db, "DETACH other");
    return copied;
  }
  return Exec(db, "DETACH other");
}

Status DatabaseFile::Finish() {
  db_.reset();
  IMG_RETURN_IF_ERROR(SyncFile(temporary_));
  IMG_RETURN_IF_ERROR(RenameWithoutOverwriting(temporary_, path_));
  temporary_.clear();
  return SyncDirectoryOf(path_);
}

Status WriteDatabaseFile(const std::string& path, const ModelSource& source) {
  IMG_ASSIGN_OR_RETURN(auto file, DatabaseFile::Create(path));
  IMG_RETURN_IF_ERROR(file->Add(source));
  return file->Finish();
}

}  // namespace imgfsck
