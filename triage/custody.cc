// SPDX-License-Identifier: Apache-2.0
#include "triage/custody.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "io/file.h"
#include "io/sha256.h"

namespace imgfsck {
namespace {

constexpr size_t kLongestRecord = size_t{64} << 20;  // bytes
const std::string kNoRecord(64, '0');                // what the first record calls the one before

std::string Now() {
  const std::time_t seconds =
      std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string UserName() {
  const uid_t id = getuid();
  struct passwd entry {};
  struct passwd* found = nullptr;
  std::string buffer(4096, '\0');
  getpwuid_r(id, &entry, buffer.data(), buffer.size(), &found);
  return found == nullptr ? std::to_string(id) : std::string(found->pw_name);
}

// What is wrong with a record; empty: nothing. Fills `event`.
std::string Trouble(const std::string& line, const CustodyState& before, std::string* event) {
  const nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
  if (!record.is_object()) return "it is no JSON object";
  const auto text = [&](const char* key) {
    const auto found = record.find(key);
    return found != record.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const auto sequence = record.find("sequence");
  if (sequence == record.end() || !sequence->is_number_unsigned() ||
      sequence->get<uint64_t>() != before.records + 1) {
    return "its number is not the next one";
  }
  if (text("previous") != before.last_hash) return "the record before it is not the one it names";
  *event = text("event");
  return "";
}

void Count(const std::string& event, CustodyState* state) {
  if (event == "start") {
    ++state->runs;
    if (state->open_run) ++state->unfinished;
    state->open_run = true;
  }
  if (event == "end") state->open_run = false;
}

}  // namespace

Result<CustodyState> VerifyCustodyLog(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrorFromErrno(errno, "open " + Printable(path));
  std::ifstream in(path, std::ios::binary);
  if (!in || !S_ISREG(info.st_mode)) {
    return Error{ErrorCode::kIo, "cannot read " + Printable(path), {}};
  }
  CustodyState state;
  state.last_hash = kNoRecord;
  std::string line;
  while (std::getline(in, line)) {
    std::string event;
    if (in.eof()) {
      state.trouble = "it is cut off";
    } else if (line.size() > kLongestRecord) {
      state.trouble = "it is too long";
    } else {
      state.trouble = Trouble(line, state, &event);
    }
    if (!state.trouble.empty()) {
      state.broken_record = state.records + 1;
      return state;
    }
    Count(event, &state);
    ++state.records;
    state.last_hash = HexSha256(AsBytes(line));
  }
  if (in.bad()) return Error{ErrorCode::kIo, "cannot read " + Printable(path), {}};
  if (state.open_run) ++state.unfinished;
  return state;
}

Result<std::unique_ptr<CustodyLog>> CustodyLog::Open(const std::string& path) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
  const int fd = open(path.c_str(), flags, 0600);
  if (fd < 0) return ErrorFromErrno(errno, "open " + Printable(path));
  std::unique_ptr<CustodyLog> log(new CustodyLog(fd, {}));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return Error{ErrorCode::kLocked, Printable(path) + " is in use by another run", {}};
  }
  IMG_ASSIGN_OR_RETURN(log->state_, VerifyCustodyLog(path));
  if (log->state_.broken_record != 0) {
    return Error{ErrorCode::kConflict,
                 Printable(path) + " is broken at record " +
                     std::to_string(log->state_.broken_record) + " (" + log->state_.trouble +
                     "): keep it, and begin another",
                 {}};
  }
  IMG_RETURN_IF_ERROR(SyncDirectoryOf(path));
  return log;
}

CustodyLog::~CustodyLog() { close(fd_); }

Status CustodyLog::Record(std::string_view event,
                          const std::function<void(JsonWriter& json)>& members) {
  std::string line;
  {
    TextWriter out(&line);
    JsonWriter json(out);
    json.BeginObject();
    json.Member("sequence", state_.records + 1);
    json.Member("previous", state_.last_hash);
    json.Member("time", Now());
    json.Member("event", event);
    if (members) members(json);
    json.EndObject();
    IMG_RETURN_IF_ERROR(out.Finish());
  }
  const std::string hash = HexSha256(AsBytes(line));
  line += '\n';
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t size = write(fd_, rest.data(), rest.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return ErrorFromErrno(errno, "write the custody log");
    rest.remove_prefix(static_cast<size_t>(size));
  }
  ++state_.records;
  state_.last_hash = hash;
  return Ok();
}

Status CustodyLog::Start(const std::vector<std::string>& command_line) {
  struct utsname machine {};
  uname(&machine);
  char folder[4096];
  const bool known = getcwd(folder, sizeof folder) != nullptr;
  IMG_RETURN_IF_ERROR(Record("start", [&](JsonWriter& json) {
    json.Member("user", UserName());
    json.Member("host", std::string_view(machine.nodename));
    json.Member("system", std::string(machine.sysname) + " " + machine.release);
    json.Member("tool", "imgtriage " IMGFSCK_VERSION);
    json.Member("sqlite", sqlite3_libversion());
    json.Member("openssl", OpenSSL_version(OPENSSL_VERSION));
    json.Member("zlib", zlibVersion());
    json.Member("folder", std::string_view(known ? folder : ""));
    json.Key("command-line");
    json.BeginArray();
    for (const std::string& word : command_line) json.Value(std::string_view(word));
    json.EndArray();
  }));
  return fsync(fd_) == 0 ? Ok() : ErrorFromErrno(errno, "write the custody log");
}

Status CustodyLog::End(int exit_status) {
  IMG_RETURN_IF_ERROR(
      Record("end", [&](JsonWriter& json) { json.Member("exit-status", exit_status); }));
  return fsync(fd_) == 0 ? Ok() : ErrorFromErrno(errno, "write the custody log");
}

}  // namespace imgfsck
