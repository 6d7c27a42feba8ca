# As many packages as the module here asks for. Derivations are real ones, with the machine's own shell as builder.
# While opnix is not where its units name it, builds find it below `stage`.
{ lib, opnix ? null, stage ? "", system ? "x86_64-linux" }:
let
  pkgs = import ./pkgs.nix { inherit lib opnix stage system; };
  build = name: environment: script: derivation ({
    inherit name system;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-euc" script ];
  } // environment);
  cargo = here; clippy = here; rustfmt = here; cargo-deny = here; python3 = here; nodejs = here;
  here = build "here" { } "mkdir $out" // { outPath = "/usr"; };
in
rec {
  inherit lib system;
  stdenv.hostPlatform = { parsed.cpu.name = "x86_64"; inherit system; };
  stdenv.buildPlatform.canExecute = other: system == (import ./pkgs.nix { inherit lib; }).system && other.system == system;
  coreutils = here;
  findutils = here;
  gnugrep = here;
  gnused = here;
  python3Packages = { };
  runtimeShell = "/bin/sh";
  systemd = here // { version = "252"; };
  writeText = name: text: build name { inherit text; passAsFile = [ "text" ]; } "cp $textPath $out";
  writeTextDir = path: text: build (baseNameOf path) { inherit text; passAsFile = [ "text" ]; }
    "mkdir -p $out/${dirOf path}; cp $textPath $out/${path}";
  runCommand = name: environment: script:
    build name environment (builtins.replaceStrings [ "${toString opnix}/bin/opnix" ] [ "${stage}${toString opnix}/bin/opnix" ] script);
  formats.json = { }: { generate = name: value: writeText name (builtins.toJSON value); };
  rustPlatform.buildRustPackage = arguments: if opnix != null then opnix else build "opnix-${arguments.version}" { } "mkdir $out" // { inherit (arguments) meta; };
  callPackage = file: arguments: (import file) (builtins.intersectAttrs (builtins.functionArgs (import file)) (all // arguments));
  all = { inherit lib callPackage rustPlatform runtimeShell systemd stdenv python3 python3Packages; };
  mkShell = arguments: build "shell" { } "mkdir $out";
  nixfmt-rfc-style = here;
  inherit cargo clippy rustfmt cargo-deny python3 nodejs;
  testers.runNixOSTest = test: build "vm-test-${test.name}" { nodes = builtins.toJSON (lib.mapAttrs (_: node: builtins.unsafeDiscardStringContext (lib.evalModules {
    modules = [ ./nixos.nix node ];
    specialArgs.pkgs = pkgs;
  }).config.system.build.toplevel.drvPath) test.nodes); } "mkdir $out";
}
