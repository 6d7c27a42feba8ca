{
  lib,
  callPackage,
  rustPlatform,
  runtimeShell,
  systemd,
  # Where `opnix env`, `opnix secret` and `opnix doctor` find 1Password's core if nobody names it.
  library ? callPackage ./library.nix { },
}:

rustPlatform.buildRustPackage {
  pname = "opnix";
  version = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).package.version;

  src = builtins.path {
    path = ../.;
    name = "opnix-source";
    filter = path: _: !(builtins.elem (baseNameOf path) [ "target" ".git" ]);
  };
  cargoLock.lockFile = ../Cargo.lock;

  env = lib.optionalAttrs (library != null) { OPNIX_LIBRARY = library; };

  # They boot containers, and fetch 1Password's own clients: tests/run does that, not a build.
  doCheck = false;

  installPhase = ''
    runHook preInstall
    BINARY=$(find target -path '*/release/opnix' -type f | head -n 1) \
      LIVE=no SHELL_PATH=${runtimeShell} SYSTEMD_VERSION=${lib.versions.major systemd.version} \
      sh systemd/install "$out"
    runHook postInstall
  '';

  meta = {
    description = "1Password secrets for systemd units, the way systemd hands out credentials";
    license = [ lib.licenses.mit lib.licenses.asl20 ];
    platforms = lib.platforms.linux;
    mainProgram = "opnix";
  };
}
