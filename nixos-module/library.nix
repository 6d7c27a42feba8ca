# 1Password's core library, as nixpkgs has it in its package of the SDK for Python; `null` where it has none.
{ python3, python3Packages, stdenv }:
let
  sdk = python3Packages.onepassword-sdk or null;
in
if sdk == null then null
else "${sdk}/${python3.sitePackages}/onepassword/lib/${stdenv.hostPlatform.parsed.cpu.name}/libop_uniffi_core.so"
