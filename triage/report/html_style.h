// SPDX-License-Identifier: Apache-2.0
// The page's style sheet. Colours that people who confuse red and green tell apart (Okabe and Ito);
// none of them means anything that a word beside it does not say.
#pragma once

#include <string_view>

namespace imgfsck {

inline constexpr char kHtmlStyle[] = R"css(
:root{--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--back:#fff;--shade:#f6f8fa}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:0;padding:1rem}
main{max-width:76rem;margin:0 auto}
h1,h2,h3,h4,p,li,summary{overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0 0 .5rem}
h2{font-size:1.25rem;margin:2rem 0 .5rem;border-bottom:2px solid var(--line)}
h3{font-size:1.05rem;margin:1.5rem 0 .25rem}
h4{font-size:1rem;margin:1rem 0 .25rem}
p{margin:.25rem 0}
a{color:#0550ae}
code,.mono{font-family:ui-monospace,monospace;font-size:.875em;overflow-wrap:anywhere}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.875rem;width:100%}
th,td{border:1px solid var(--line);padding:.25rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere;min-width:6rem}
td.n{min-width:4rem}
th{background:var(--shade);overflow-wrap:normal}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.badge{display:inline-block;padding:0 .5em;border-radius:.25em;font-weight:600;font-size:.8125rem;border:2px solid;white-space:nowrap}
.unsafe{background:#fbe3d6;border-color:#d55e00}
.undecidable{background:#f6e5ef;border-color:#cc79a7}
.damaged{background:#fdf0d5;border-color:#e69f00}
.sound{background:#dff3ec;border-color:#009e73}
.other{background:var(--shade);border-color:var(--line)}
.soft{color:var(--soft)}
.image{border:1px solid var(--line);border-radius:.5rem;padding:0 1rem 1rem;margin:1rem 0}
ul.chain,ul.chain ul{list-style:none;padding-left:1.25rem;border-left:1px solid var(--line);margin:.25rem 0}
ul.chain{padding-left:.75rem}
svg{max-width:100%;height:auto;display:block}
svg image{image-rendering:pixelated}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(18rem,100%),1fr));gap:1rem}
.pictures>div{min-width:0}
.legend th,.legend td{min-width:0}
.legend td:first-child{width:1.5rem;min-width:0;padding:0}
details{margin:.5rem 0}
summary{cursor:pointer;font-weight:600}
@media(max-width:40rem){body{padding:.5rem}td:not(.n){min-width:7rem}.legend td:not(.n){min-width:0}.image{padding:0 .5rem .5rem}}
)css";

}  // namespace imgfsck
