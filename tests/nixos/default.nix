# A configuration as a test reads it: nix-instantiate --eval --strict --json tests/nixos --arg module ./x.nix
{ module
, opnix ? "/usr"
, lib ? import ./lib.nix
, persistence ? false
}:
let
  package = { outPath = opnix; type = "derivation"; name = "opnix"; };
  pkgs = import ./pkgs.nix { inherit lib; opnix = package; };
  impermanence.options.environment.persistence = lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule {
      options = lib.genAttrs [ "directories" "files" ] (_: lib.mkOption { type = lib.types.listOf lib.types.anything; default = [ ]; });
    });
    default = { };
  };
  system = lib.evalModules {
    modules = [ ./nixos.nix ../../nixos-module module ] ++ lib.optional persistence impermanence;
    specialArgs = { inherit pkgs; };
  };
  inherit (system) config;
  cfg = config.services.onepassword-secrets;
in
{
  inherit (config) warnings;
  inherit (config.system.build) faults units;
  inherit (cfg) secretPaths;
  mapping = (import ../../nixos-module/mapping.nix { inherit lib cfg; inherit (cfg) outputDir; inherit (config.systemd) services; }).content;
  groups = config.users.groups;
  tmpfiles = config.systemd.tmpfiles.rules;
  persistence = config.environment.persistence or { };
  # To be built: what is under /etc, and what brings unit files.
  etc = config.environment.etc;
  packages = config.systemd.packages;
}
