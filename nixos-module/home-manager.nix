# The home-manager module: the same for the units of one user, by a service of that user's own.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.programs.onepassword-secrets;
  entry = import ./entry.nix { inherit lib; };
  # In user units %t is $XDG_RUNTIME_DIR.
  socket = "%t/opnix/creds.sock";
  # Written in memory, and linked to from where OpNix would have put them.
  directory = "/run/secrets";
  absolute = path: if lib.hasPrefix "/" path then path else "${config.home.homeDirectory}/${path}";
  linked = name: secret: secret // {
    path = name;
    symlinks = secret.symlinks ++ [ (absolute (if secret.path == null then name else secret.path)) ];
  };
  services = lib.mapAttrs (_: credentials: {
    onepassword = { environment = { }; environmentTemplate = null; restartOnChange = false; inherit credentials; };
  }) cfg.units;
  mapping = import ./mapping.nix {
    inherit lib services;
    outputDir = directory;
    cfg = cfg // {
      secrets = lib.mapAttrs linked cfg.secrets;
      templates = lib.mapAttrs linked cfg.templates;
    };
  };
  check = import ./checked.nix {
    inherit pkgs;
    inherit (cfg) package;
    inherit (mapping) content;
  };
  configs = [ check.file ] ++ cfg.configFiles;
  # With the same provider, and nothing of what the options say to write.
  settings = (pkgs.formats.json { }).generate "settings.json"
    (removeAttrs mapping.content [ "secrets" "templates" "mirror_root" "systemdIntegration" ]);
  write = output: files: toString ([ "${cfg.package}/bin/opnix" "secret" "-output" output "-token-file" (toString cfg.tokenFile) ]
    ++ map (file: "-config ${file}") files);
  inMemory = write "%t/secrets" [ check.file ];
  entries = cfg.secrets // cfg.templates;
  withServices = builtins.attrNames (lib.filterAttrs (_: one: one.services != [ ] && one.services != { }) entries);
  withOnChange = lib.concatLists (lib.mapAttrsToList
    (unit: credentials: map (id: "${unit}.${id}") (builtins.attrNames (lib.filterAttrs (_: one: one.onChange != "none") credentials)))
    cfg.units);
in
{
  options.programs.onepassword-secrets = import ./options.nix {
    inherit lib pkgs;
    package = pkgs.callPackage ./package.nix { };
  } // {
    units = mkOption {
      type = types.attrsOf (types.attrsOf (types.coercedTo types.str (reference: { inherit reference; })
        (types.submodule entry.credential)));
      default = { };
      example = { backup.key = "op://Personal/Backup/password"; };
      description = "Credentials of your own units, by unit (without `.service`) and credential.";
    };
  };

  config = mkIf cfg.enable {
    programs.onepassword-secrets.secretPaths =
      lib.mapAttrs (name: secret: absolute (if secret.path == null then name else secret.path)) (cfg.secrets // cfg.templates);

    warnings = check.warnings
    ++ lib.optional (cfg.configFiles != [ ])
      "programs.onepassword-secrets.configFiles: their files are written below the home directory as OpNix does, in plain text on the disk. What `secrets` names is in memory."
    ++ lib.optional (withServices != [ ])
      "programs.onepassword-secrets: nothing is restarted for the `services` of ${toString withServices}: no service of a user acts on changes. Restart them yourself."
    ++ lib.optional (withOnChange != [ ])
      "programs.onepassword-secrets.units: nothing is done for the `onChange` of ${toString withOnChange}: no service of a user acts on changes. Restart them yourself."
    ++ lib.optional (cfg.systemdIntegration != { })
      "programs.onepassword-secrets.systemdIntegration: it has no effect: no service of a user acts on changes.";

    home.packages = [ cfg.package ];

    systemd.user.sockets.opnix = {
      Unit.Description = "Credentials from 1Password";
      Socket = {
        ListenStream = socket;
        FileDescriptorName = "creds";
        SocketMode = "0600";
        DirectoryMode = "0700";
        Backlog = 4096;
        TriggerLimitIntervalSec = 0;
      };
      Install.WantedBy = [ "sockets.target" ];
    };

    systemd.user.services = {
      opnix = {
        Unit = {
          Description = "Credentials from 1Password";
          StartLimitIntervalSec = 0;
        };
        Service = {
          Type = "notify";
          ExecStart = toString ([ "${cfg.package}/bin/opnix" "serve" "--user" "--token-file" (toString cfg.tokenFile) ]
            ++ map (file: "--config ${file}") configs);
          FileDescriptorStoreMax = 4096;
          Restart = "always";
          RestartSec = "100ms";
          UMask = "0077";
          LimitCORE = 0;
        };
      };
    } // lib.optionalAttrs (mapping.files != [ ] || cfg.configFiles != [ ]) {
      opnix-secrets = {
        Unit.Description = "Files with secrets from 1Password";
        Service = {
          Type = "oneshot";
          RemainAfterExit = true;
          UMask = "0077";
          ExecStart = if cfg.configFiles == [ ] then inMemory else write config.home.homeDirectory ([ settings ] ++ cfg.configFiles);
        } // lib.optionalAttrs (cfg.configFiles != [ ] && mapping.files != [ ]) {
          ExecStartPre = inMemory;
        };
        Install.WantedBy = [ "default.target" ];
      };
    } // lib.mapAttrs (_: credentials: {
      Unit = { Wants = [ "opnix.socket" ]; After = [ "opnix.socket" ]; };
      Service.LoadCredential = map (id: "${id}:${socket}") (builtins.attrNames credentials);
    }) cfg.units;
  };
}
