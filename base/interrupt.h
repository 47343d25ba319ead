// SPDX-License-Identifier: Apache-2.0
// One flag that SIGINT, SIGTERM and SIGHUP set. Long loops ask it and return kInterrupted.
#pragma once

#include "base/result.h"

namespace imgfsck {

void CatchStopSignals();  // once, at the start of a tool
bool StopRequested();
void RequestStop();       // what the handler does; for tests
void ClearStopRequest();  // for tests
Status CheckStop();       // kInterrupted once a stop was requested

}  // namespace imgfsck
