// SPDX-License-Identifier: Apache-2.0
#include "io/undo_database.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "base/units.h"
#include "io/file.h"

namespace imgfsck {
namespace {

constexpr uint32_t kApplicationId = 0x49464B55;            // "IFKU"
constexpr int kLongestValue = 4 * static_cast<int>(kMiB);  // bytes; a row has two of 1 MiB
constexpr char kMetaSql[] = "CREATE TABLE meta(key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID";
constexpr char kPatchSql[] =
    "CREATE TABLE patch(seq INTEGER PRIMARY KEY, offset INTEGER NOT NULL, old BLOB NOT NULL, "
    "new BLOB NOT NULL)";

// Offsets in an SQLite file's header.
constexpr size_t kWriteVersionAt = 18, kReadVersionAt = 19;  // 1: rollback journal
constexpr size_t kUserVersionAt = 60, kApplicationIdAt = 68;
constexpr size_t kHeaderLength = 100;  // bytes
constexpr std::string_view kMagic{"SQLite format 3\0", 16};
// The last eight bytes of a journal that names another journal (which a recovery might delete).
constexpr std::array<uint8_t, 8> kNamesOtherJournal = {0xd9, 0xd5, 0x05, 0xf9,
                                                       0x20, 0xa1, 0x63, 0xd7};
constexpr uint32_t kUserVersion = 1;

ErrorCode CodeOf(int sqlite_code) {
  switch (sqlite_code & 0xFF) {
    case SQLITE_FULL:
      return ErrorCode::kNoSpace;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorCode::kLocked;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
    case SQLITE_AUTH:
      return ErrorCode::kPermission;
    case SQLITE_NOMEM:
      return ErrorCode::kOutOfMemory;
    case SQLITE_IOERR:
      return ErrorCode::kIo;
    default:
      return ErrorCode::kInvalid;
  }
}

Error DatabaseError(sqlite3* db, int sqlite_code, const std::string& path) {
  const int os_error = db != nullptr ? sqlite3_system_errno(db) : 0;
  const std::string what = fmt::format("undo record {}", Printable(path));
  if (os_error == ENOSPC || os_error == EDQUOT || os_error == EFBIG) {
    return ErrorFromErrno(os_error, what);
  }
  return Error{CodeOf(sqlite_code), fmt::format("{}: {}", what, sqlite3_errstr(sqlite_code)), {}};
}

Error NotOurs(const std::string& path, std::string_view why) {
  return Error{ErrorCode::kInvalid,
               fmt::format("{} is not a complete undo record: {}", Printable(path), why),
               {}};
}

bool Exists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

// Never a URI, never ":memory:".
std::string PlainName(const std::string& path) {
  return path.starts_with('/') ? path : "./" + path;
}

// Looks at the file before SQLite does.
Status CheckHeader(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(path));
  std::array<uint8_t, kHeaderLength> header{};
  IMG_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(0, header));
  if (got < kHeaderLength || AsText(header).substr(0, kMagic.size()) != kMagic) {
    return NotOurs(path, "no SQLite database");
  }
  if (BeAt<uint32_t>(header, kApplicationIdAt) != kApplicationId) {
    return NotOurs(path, "a database of another program");
  }
  if (BeAt<uint32_t>(header, kUserVersionAt) != kUserVersion) {
    return NotOurs(path, "another version's, or cut short");
  }
  if (header[kWriteVersionAt] != 1 || header[kReadVersionAt] != 1 || Exists(path + "-wal")) {
    return NotOurs(path, "it has a write-ahead log, which ours never have");
  }
  return Ok();
}

// A crash while the state changed leaves a journal that SQLite plays back by itself; but one that
// names other files is none of ours.
Status CheckJournal(const std::string& path) {
  auto journal = FileSource::Open(path + "-journal");
  if (!journal && journal.error().code == ErrorCode::kNotFound) return Ok();
  if (!journal) return Error(std::move(journal).error());
  std::array<uint8_t, 8> tail{};
  const uint64_t size = (*journal)->Size();
  if (size < tail.size()) return Ok();
  IMG_RETURN_IF_ERROR(ReadExact(**journal, size - tail.size(), tail));
  if (tail == kNamesOtherJournal) return NotOurs(path, "its journal names other files");
  return Ok();
}

}  // namespace

UndoDatabase::Statement::Statement(sqlite3* db, const std::string& path, std::string_view sql)
    : db_(db), path_(path) {
  failure_ = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr);
}

void UndoDatabase::Statement::BindNumber(int index, uint64_t value) {
  if (failure_ != SQLITE_OK) return;
  failure_ = sqlite3_bind_int64(statement_, index, static_cast<sqlite3_int64>(value));
}

void UndoDatabase::Statement::BindText(int index, std::string_view text) {
  if (failure_ != SQLITE_OK) return;
  failure_ = sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT,
                                 SQLITE_UTF8);
}

void UndoDatabase::Statement::BindBlob(int index, Bytes bytes) {
  if (failure_ != SQLITE_OK) return;
  // A null pointer would bind NULL.
  failure_ = bytes.empty() ? sqlite3_bind_zeroblob(statement_, index, 0)
                           : sqlite3_bind_blob64(statement_, index, bytes.data(), bytes.size(),
                                                 SQLITE_STATIC);
}

Result<bool> UndoDatabase::Statement::Step() {
  if (failure_ == SQLITE_OK) {
    const int outcome = sqlite3_step(statement_);
    if (outcome == SQLITE_ROW) return true;
    if (outcome == SQLITE_DONE) return false;
    failure_ = outcome;
  }
  return DatabaseError(db_, failure_, path_);
}

Status UndoDatabase::Statement::Reset() {
  if (failure_ == SQLITE_OK) failure_ = sqlite3_reset(statement_);
  return failure_ == SQLITE_OK ? Ok() : Status(DatabaseError(db_, failure_, path_));
}

Result<uint64_t> UndoDatabase::Statement::Number(int column) const {
  const sqlite3_int64 value = sqlite3_column_int64(statement_, column);
  if (sqlite3_column_type(statement_, column) != SQLITE_INTEGER || value < 0) {
    return NotOurs(path_, "a number is missing");
  }
  return static_cast<uint64_t>(value);
}

Result<std::string_view> UndoDatabase::Statement::Text(int column) const {
  if (sqlite3_column_type(statement_, column) != SQLITE_TEXT) {
    return NotOurs(path_, "a text is missing");
  }
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (text == nullptr) return DatabaseError(db_, SQLITE_NOMEM, path_);
  return std::string_view(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

Result<Bytes> UndoDatabase::Statement::Blob(int column) const {
  if (sqlite3_column_type(statement_, column) != SQLITE_BLOB) {
    return NotOurs(path_, "bytes are missing");
  }
  const auto* bytes = static_cast<const uint8_t*>(sqlite3_column_blob(statement_, column));
  return Bytes(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

UndoDatabase::~UndoDatabase() { sqlite3_close_v2(db_); }

std::unique_ptr<UndoDatabase::Statement> UndoDatabase::Prepare(std::string_view sql) const {
  return std::make_unique<Statement>(db_, path_, sql);
}

Status UndoDatabase::Execute(const char* sql) {
  const int outcome = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
  return outcome == SQLITE_OK ? Ok() : Status(DatabaseError(db_, outcome, path_));
}

Result<std::unique_ptr<UndoDatabase>> UndoDatabase::OpenHardened(const std::string& path) {
  sqlite3* db = nullptr;
  const int outcome = sqlite3_open_v2(PlainName(path).c_str(), &db, SQLITE_OPEN_READWRITE, "unix");
  auto database = std::unique_ptr<UndoDatabase>(new UndoDatabase(path, db));
  if (outcome != SQLITE_OK) return DatabaseError(db, outcome, path);
  sqlite3_extended_result_codes(db, 1);
  for (int off : {SQLITE_DBCONFIG_TRUSTED_SCHEMA, SQLITE_DBCONFIG_ENABLE_TRIGGER,
                  SQLITE_DBCONFIG_ENABLE_VIEW}) {
    sqlite3_db_config(db, off, 0, nullptr);
  }
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_limit(db, SQLITE_LIMIT_LENGTH, kLongestValue);
  sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_busy_timeout(db, 2000);
  IMG_RETURN_IF_ERROR(
      database->Execute("PRAGMA cache_size=-2000; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;"
                        "PRAGMA temp_store=MEMORY; PRAGMA synchronous=EXTRA"));
  return database;
}

Result<std::unique_ptr<UndoDatabase>> UndoDatabase::Create(const std::string& path) {
  for (const char* suffix : {"-journal", "-wal"}) {
    if (Exists(path + suffix)) {
      return ErrorFromErrno(EEXIST, fmt::format("create {}{}", Printable(path), suffix));
    }
  }
  // SQLite has no exclusive creation; it takes an empty file for a new database.
  if (auto file = FileStore::Open(path, FileStore::Mode::kCreateNew); !file) {
    return Error(std::move(file).error());
  }
  auto database = OpenHardened(path);
  Status status = Ok();
  if (!database) {
    status = Error(database.error());
  } else {
    const std::string setup = fmt::format(
        "PRAGMA application_id={}; PRAGMA user_version={}; PRAGMA journal_mode=DELETE;"
        "BEGIN; {}; {}",
        kApplicationId, kUserVersion, kMetaSql, kPatchSql);
    status = (*database)->Execute(setup.c_str());
  }
  if (status) return database;
  if (database) database->reset();
  Remove(path);
  return Error(std::move(status).error());
}

void UndoDatabase::Remove(const std::string& path) {
  unlink(path.c_str());
  unlink((path + "-journal").c_str());
  (void)SyncDirectoryOf(path).has_value();
}

Result<std::unique_ptr<UndoDatabase>> UndoDatabase::Open(const std::string& path) {
  IMG_RETURN_IF_ERROR(CheckHeader(path));
  IMG_RETURN_IF_ERROR(CheckJournal(path));
  IMG_ASSIGN_OR_RETURN(auto database, OpenHardened(path));
  IMG_RETURN_IF_ERROR(database->CheckSchema());
  return database;
}

Status UndoDatabase::CheckSchema() const {
  const auto rows = Prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name");
  const std::pair<std::string_view, std::string_view> expected[] = {{"meta", kMetaSql},
                                                                    {"patch", kPatchSql}};
  for (const auto& [name, sql] : expected) {
    IMG_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return NotOurs(path_, "a table is missing");
    IMG_ASSIGN_OR_RETURN(const auto type_found, rows->Text(0));
    IMG_ASSIGN_OR_RETURN(const auto name_found, rows->Text(1));
    IMG_ASSIGN_OR_RETURN(const auto sql_found, rows->Text(2));
    if (type_found != "table" || name_found != name || sql_found != sql) {
      return NotOurs(path_, "it has other tables");
    }
  }
  IMG_ASSIGN_OR_RETURN(const bool more, rows->Step());
  if (more) return NotOurs(path_, "it has other tables");
  return Ok();
}

}  // namespace imgfsck
