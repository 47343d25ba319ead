// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/format.h"

#include "formats/vhd/create.h"
#include "formats/vhd/driver.h"
#include "formats/vhd/rows.h"

namespace imgfsck::vhd {
namespace {

constexpr std::string_view kAliases[] = {"vhd"};

}  // namespace

const Format kFormat = {
    .name = "vpc",
    .aliases = kAliases,
    .description = "VHD: Virtual PC, Hyper-V, XenServer",
    .probe = Probe,
    .inspect = Inspect,
    .open = VhdDriver::Open,
    .create = Create,
    .create_options = CreateOptionHelp(),
};

}  // namespace imgfsck::vhd
