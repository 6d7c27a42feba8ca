# A whole server around configuration.nix, as small as it can be: replace it with yours.
{ pkgs, ... }:
{
  imports = [ ./configuration.nix ];

  # Nothing listed here is kept without the impermanence module, which this example does not bring:
  # https://github.com/nix-community/impermanence
  services.onepassword-secrets.persistence.root = pkgs.lib.mkForce null;

  boot.loader.grub.device = "/dev/sda";
  fileSystems."/" = { device = "/dev/sda1"; fsType = "ext4"; };

  users.users.opencode = { isSystemUser = true; group = "opencode"; };
  users.groups.opencode = { };
  services.caddy.enable = true;
  systemd.services.opencode.serviceConfig = {
    User = "opencode";
    ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };

  system.stateVersion = "25.11";
}
